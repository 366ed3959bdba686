"""``noriba datastore``."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import click

from noriba.cli.framework import ApiCommand, Cli, LazyGroup
from noriba.client import documents

if TYPE_CHECKING:
    from noriba.cli.output import Columns

COLUMNS: Columns = [
    ("Name", "name"),
    ("Type", "type"),
    ("Account", "account_name"),
    (
        "Container",
        lambda item: item.get("container_name") or item.get("filesystem") or item.get("file_share_name"),
    ),
    ("Default", lambda item: "yes" if item.get("is_default") else ""),
]


@click.group(cls=LazyGroup)
def datastore() -> None:
    """Manage datastores."""


_name = click.option("--name", "-n", required=True, help="Name of the datastore.")


@datastore.command("list", cls=ApiCommand)
@click.option("--max-results", "-r", type=click.IntRange(1), help="Most results to list.")
def list_datastores(cli: Cli, max_results: int | None) -> None:
    """List datastores."""
    found = cli.session.pages(f"{cli.session.workspace}/datastores")
    cli.show([documents.datastore(document) for document in islice(found, max_results)], COLUMNS)


@datastore.command(cls=ApiCommand)
@_name
def show(cli: Cli, name: str) -> None:
    """Show a datastore."""
    cli.show(documents.datastore(cli.session.get(_path(cli, name))), COLUMNS)


@datastore.command(cls=ApiCommand)
@click.option("--file", "-f", required=True, type=click.Path(), help="YAML file of the datastore.")
@click.option("--name", "-n", help="Name of the datastore, if not the one in the file.")
@click.option(
    "--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Replace a field of the file: a.b=c …"
)
def create(cli: Cli, file: str, name: str | None, sets: tuple[str, ...]) -> None:
    """Create a datastore, or change one."""
    from noriba.cli import sdk

    client = sdk.client(cli)
    described = sdk.load("load_datastore", file, sdk.overrides_of(sets, name=name))
    with sdk.readable_errors():
        created = client.datastores.create_or_update(described)
    cli.show(documents.datastore(cli.session.get(_path(cli, created.name))), COLUMNS)


@datastore.command(cls=ApiCommand)
@_name
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def delete(cli: Cli, name: str, yes: bool) -> None:
    """Delete a datastore. What is stored there stays."""
    if not yes:
        click.confirm(f"Delete the datastore {name}?", abort=True, err=True)
    cli.session.call("DELETE", _path(cli, name))


def _path(cli: Cli, name: str) -> str:
    return f"{cli.session.workspace}/datastores/{name}"
