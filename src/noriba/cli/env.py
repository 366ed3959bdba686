"""``noriba env``, ``noriba run``, ``noriba open``: clients and the browser, pointed to the server."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from noriba.cli.framework import ApiCommand, Cli, note
from noriba.client.environment import (
    as_dotenv,
    as_shell,
    certificate_bundle,
    client_environment,
    to_unset,
    workspace_config,
)
from noriba.client.errors import ClientError, NoServer, NotFoundHere
from noriba.home import Home

if TYPE_CHECKING:
    from noriba.client.target import Target

TOKEN_LIFETIME_S = 24 * 3600
"""MLflow can not renew its token, so the one it is given lasts a day."""


@click.command(cls=ApiCommand)
@click.option(
    "--format", "form", type=click.Choice(["sh", "json", "dotenv"]), default="sh", show_default=True
)
@click.option(
    "--write-config",
    is_flag=False,
    flag_value=".",
    metavar="[DIR]",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write DIR/.azureml/config.json, for MLClient.from_config(). [.]",
)
def env(cli: Cli, form: str, write_config: Path | None) -> None:
    """Print the variables that point Azure ML's SDK, MLflow, azure-identity and curl to the server.

    \b
    eval "$(noriba env)"
    """
    if write_config is not None:
        file = write_config / ".azureml" / "config.json"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(workspace_config(cli.target))
        except OSError as error:
            raise ClientError(f"{file} can not be written: {error.strerror}.") from error
        note(f"Wrote {file}")
    variables = environment_for(cli)
    if form == "json":
        import json

        click.echo(json.dumps(variables, indent=2))
    elif form == "dotenv":
        click.echo(as_dotenv(variables), nl=False)
    else:
        click.echo(as_shell(variables, to_unset(os.environ)), nl=False)
        if sys.stdout.isatty():
            note(f'# Set them in this shell with: eval "$(noriba env{cli.target.home_flag})"')


@click.command(
    cls=ApiCommand, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("program", nargs=-1, type=click.UNPROCESSED, required=True)
def run(cli: Cli, program: tuple[str, ...]) -> None:
    """Run a program with the variables of `noriba env`.

    \b
    noriba run -- python train_submit.py
    """
    environ = {**os.environ, **environment_for(cli)}
    for name in to_unset(os.environ):
        environ.pop(name, None)
    try:
        os.execvpe(program[0], program, environ)
    except FileNotFoundError:
        note(f"noriba: There is no program '{program[0]}'.")
        sys.exit(127)
    except OSError as error:
        note(f"noriba: '{program[0]}' can not be run: {error.strerror}.")
        sys.exit(126)


@click.command("open", cls=ApiCommand)
@click.option("--print", "only_print", is_flag=True, help="Print the address instead of opening it.")
def open_studio(cli: Cli, only_print: bool) -> None:
    """Open the Studio in the browser."""
    show_page(f"{cli.target.base_url}/studio/", only_print=only_print)


def show_page(url: str, *, only_print: bool = False, to_stderr: bool = False) -> None:
    """Print an address and, on a desktop, open it."""
    click.echo(url, err=to_stderr)
    if not only_print and (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"
    ):
        click.launch(url)


def environment_for(cli: Cli) -> dict[str, str]:
    """The variables for the server of this command. Without a running server MLflow's token is left out."""
    target = cli.target
    bundle = bundle_for(target)
    try:
        token = cli.session.token(lifetime_s=TOKEN_LIFETIME_S)
    except NoServer as error:
        note(
            f"# {error} These variables are good once it runs, except for MLflow's token, which is left out."
        )
        token = ""
    return client_environment(target, bundle, os.environ, token=token)


def bundle_for(target: Target) -> Path:
    """The certificates that clients of the target trust."""
    if target.home is not None:
        home = Home(target.home)
        try:
            return certificate_bundle(home.tls, home.ca_file, os.environ)
        except OSError as error:
            raise ClientError(f"{home.tls} can not be written: {error.strerror}.") from error
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        if os.environ.get(name):
            return Path(os.environ[name])
    raise NotFoundHere(
        "The environment names a server but no certificates: set REQUESTS_CA_BUNDLE to a file that has its CA."
    )
