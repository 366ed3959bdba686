"""The ``noriba`` command. Its commands are imported when used, so that quick ones stay quick."""

from __future__ import annotations

import click

from noriba import __version__
from noriba.cli.framework import LazyGroup

COMMANDS = {
    "up": ("noriba.cli.up:up", "Start the server."),
    "down": ("noriba.cli.server:down", "Stop the server."),
    "status": ("noriba.cli.server:status", "Show the server: address, home, engine, storage, what it holds."),
    "logs": ("noriba.cli.server:logs", "Show the server's log."),
    "env": ("noriba.cli.env:env", "Print the variables that point Azure ML clients to the server."),
    "run": ("noriba.cli.env:run", "Run a program with those variables."),
    "open": ("noriba.cli.env:open_studio", "Open the Studio."),
    "job": ("noriba.cli.job:job", "Create, list, show, stream, cancel, download jobs."),
    "workspace": ("noriba.cli.workspace:workspace", "Manage workspaces."),
    "environment": ("noriba.cli.assets:environment", "Manage environments."),
    "data": ("noriba.cli.assets:data", "Manage data assets."),
    "model": ("noriba.cli.assets:model", "Manage models."),
    "component": ("noriba.cli.assets:component", "Manage components."),
    "code": ("noriba.cli.assets:code", "Look at uploaded code."),
    "datastore": ("noriba.cli.datastore:datastore", "Manage datastores."),
    "registry": ("noriba.cli.registry:registry", "Look at registries."),
    "completion": ("noriba.cli.completion:completion", "Print the shell's completion script."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
@click.version_option(__version__, "-V", "--version", prog_name="noriba")
def main() -> None:
    """Serverless compute for model training, speaking Azure ML's API.

    \b
    noriba up --detach                            start the server
    eval "$(noriba env)"                          point Azure ML's SDK, MLflow and curl to it
    noriba job create --file job.yml --stream     run a job and follow its log

    The verbs and flags are those of `az ml`. Add --help to any command.
    """


if __name__ == "__main__":
    main()
