"""``noriba workspace``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from noriba.cli.framework import ApiCommand, Cli, LazyGroup
from noriba.client import documents
from noriba.client.errors import ClientError

if TYPE_CHECKING:
    from noriba.cli.output import Columns

COLUMNS: Columns = [
    ("Name", "name"),
    ("Display name", "display_name"),
    ("Location", "location"),
    ("Resource group", "resource_group"),
    ("Description", "description"),
]


@click.group(cls=LazyGroup)
def workspace() -> None:
    """Manage workspaces."""


_name = click.option("--name", "-n", help="Name of the workspace, if not the default one.")


@workspace.command("list", cls=ApiCommand)
@click.option("--max-results", "-r", type=click.IntRange(1), help="Most results to list.")
def list_workspaces(cli: Cli, max_results: int | None) -> None:
    """List workspaces: those of a resource group with -g, all of the subscription otherwise."""
    target = cli.target
    base = target.group_path if cli.place.resource_group else f"/subscriptions/{target.subscription_id}"
    found = cli.session.pages(f"{base}/providers/Microsoft.MachineLearningServices/workspaces")
    rows = [documents.workspace(document) for document in found]
    cli.show(rows[:max_results], COLUMNS)


@workspace.command(cls=ApiCommand)
@_name
def show(cli: Cli, name: str | None) -> None:
    """Show a workspace."""
    cli.show(documents.workspace(cli.session.get(_path(cli, name))), COLUMNS)


@workspace.command(cls=ApiCommand)
@click.option("--name", "-n", help="Name of the workspace.")
@click.option("--file", "-f", type=click.Path(path_type=Path), help="YAML file of the workspace.")
@click.option("--display-name", help="Display name.")
@click.option("--description", help="Description.")
@click.option("--location", "-l", help="Location.")
@click.option("--tags", multiple=True, metavar="NAME=VALUE", help="Tags.")
@click.option("--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Replace a field of the file.")
@click.option("--no-wait", is_flag=True, hidden=True, expose_value=False)
def create(
    cli: Cli, name: str | None, file: Path | None, tags: tuple[str, ...], sets: tuple[str, ...], **flags: Any
) -> None:
    """Create a workspace."""
    described = _read(file) if file else {}
    described.update({field: value for field, value in flags.items() if value is not None})
    described.update(dict(_pair("--set", text) for text in sets))
    name = name or described.get("name")
    if not name:
        raise click.UsageError("Give the workspace a name with --name.")
    body = {
        "location": described.get("location") or "local",
        "tags": {**(described.get("tags") or {}), **dict(_pair("--tags", tag) for tag in tags)},
        "identity": {"type": "SystemAssigned"},
        "properties": {
            "friendlyName": described.get("display_name") or name,
            "description": described.get("description"),
        },
    }
    cli.session.call("PUT", _path(cli, name), json=body)
    cli.show(documents.workspace(cli.session.get(_path(cli, name))), COLUMNS)


@workspace.command(cls=ApiCommand)
@_name
@click.option("--display-name", help="Display name.")
@click.option("--description", help="Description.")
@click.option("--tags", multiple=True, metavar="NAME=VALUE", help="Tags.")
def update(
    cli: Cli, name: str | None, display_name: str | None, description: str | None, tags: tuple[str, ...]
) -> None:
    """Change a workspace's display name, description or tags."""
    properties = {"friendlyName": display_name, "description": description}
    body: dict[str, Any] = {
        "properties": {key: value for key, value in properties.items() if value is not None}
    }
    if tags:
        body["tags"] = dict(_pair("--tags", tag) for tag in tags)
    cli.session.call("PATCH", _path(cli, name), json=body)
    cli.show(documents.workspace(cli.session.get(_path(cli, name))), COLUMNS)


@workspace.command(cls=ApiCommand)
@click.option("--name", "-n", required=True, help="Name of the workspace.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--all-resources", "--permanently-delete", is_flag=True, hidden=True, expose_value=False)
@click.option("--no-wait", is_flag=True, hidden=True, expose_value=False)
def delete(cli: Cli, name: str, yes: bool) -> None:
    """Delete a workspace."""
    if not yes:
        click.confirm(f"Delete the workspace {name} with all that is in it?", abort=True, err=True)
    cli.session.call("DELETE", _path(cli, name))


def _path(cli: Cli, name: str | None) -> str:
    target = cli.target
    named = name or target.workspace
    return f"{target.group_path}/providers/Microsoft.MachineLearningServices/workspaces/{named}"


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"{flag} takes NAME=VALUE, not '{text}'.")
    return name, value


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        described = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ClientError(f"{file} can not be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise ClientError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(described, dict):
        raise ClientError(f"{file} must hold a mapping.")
    return described
