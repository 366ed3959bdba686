"""``noriba registry``."""

from __future__ import annotations

import click

from noriba.cli.framework import ApiCommand, Cli, LazyGroup
from noriba.client import documents


@click.group(cls=LazyGroup)
def registry() -> None:
    """Look at registries, such as azureml with its curated environments."""


@registry.command("list", cls=ApiCommand)
def list_registries(cli: Cli) -> None:
    """List registries."""
    found = cli.session.pages(f"{_base(cli)}/registries")
    cli.show(
        [documents.registry(document) for document in found], [("Name", "name"), ("Location", "location")]
    )


@registry.command(cls=ApiCommand)
@click.option("--name", "-n", required=True, help="Name of the registry.")
def show(cli: Cli, name: str) -> None:
    """Show a registry."""
    cli.show(documents.registry(cli.session.get(f"{_base(cli)}/registries/{name}")))


def _base(cli: Cli) -> str:
    return f"{cli.target.group_path}/providers/Microsoft.MachineLearningServices"
