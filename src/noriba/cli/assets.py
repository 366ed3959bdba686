"""``noriba environment|data|model|component|code``: the verbs of ``az ml`` for versioned assets."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from noriba.cli.framework import ApiCommand, Cli, LazyGroup, note
from noriba.client import documents
from noriba.client.assets import Assets

if TYPE_CHECKING:
    from noriba.cli.output import Columns

VERSION_COLUMNS: Columns = [
    ("Name", "name"),
    ("Version", "version"),
    ("Type", "type"),
    ("Description", "description"),
    ("Created", lambda item: (item.get("creation_context") or {}).get("created_at")),
]
NAME_COLUMNS: Columns = [
    ("Name", "name"),
    ("Latest version", "latest_version"),
    ("Type", "type"),
    ("Description", "description"),
]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_registry = click.option("--registry-name", help="Registry, instead of the workspace.")
_name = click.option("--name", "-n", required=True, help="Name of the asset.")
_version = click.option("--version", "-v", help="Version of the asset.")
_label = click.option("--label", "-l", help="Label of the asset, such as latest; instead of a version.")
_sets = click.option("--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Replace a field: a.b=c …")
_file = click.option("--file", "-f", type=click.Path(), help="YAML file of the asset.")
_tags = click.option("--tags", multiple=True, metavar="NAME=VALUE", help="Tags.")
_description = click.option("--description", help="Description.")


def _options(*options: Decorator) -> Decorator:
    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


def _group(kind: str, plural: str, noun: str) -> click.Group:
    """The commands that all assets have."""
    group = LazyGroup(kind, help=f"Manage {noun}." if kind != "code" else "Look at uploaded code.")

    @group.command("list", cls=ApiCommand)
    @click.option("--name", "-n", help="List the versions of this one; without it, the names.")
    @click.option("--max-results", "-r", type=click.IntRange(1), help="Most results to list.")
    @click.option("--archived-only", is_flag=True, help="List archived ones only.")
    @click.option("--include-archived", is_flag=True, help="List archived ones too.")
    @_options(
        *([click.option("--stage", "-s", help="List versions in this stage.")] if kind == "model" else [])
    )
    @_registry
    def list_assets(
        cli: Cli,
        name: str | None,
        max_results: int | None,
        archived_only: bool,
        include_archived: bool,
        registry_name: str | None,
        stage: str | None = None,
    ) -> None:
        from noriba.cli.job import view_of

        found = Assets(cli.session, plural, registry_name).list(
            name, view=view_of(archived_only, include_archived), stage=stage
        )
        convert = documents.version if name else documents.container
        rows = [convert(document) for document in islice(found, max_results)]
        cli.show(rows, VERSION_COLUMNS if name else NAME_COLUMNS)

    list_assets.help = f"List {noun}, or the versions of one."

    @group.command(cls=ApiCommand)
    @_options(_name, _version, _label, _registry)
    def show(cli: Cli, name: str, version: str | None, label: str | None, registry_name: str | None) -> None:
        assets = Assets(cli.session, plural, registry_name)
        cli.show(documents.version(assets.get(name, version, label)), VERSION_COLUMNS)

    show.help = f"Show one of the {noun}; the latest version unless one is named."
    if kind == "code":
        return group

    def set_archived(archived: bool) -> Callable[..., None]:
        def act(
            cli: Cli, name: str, version: str | None, label: str | None, registry_name: str | None
        ) -> None:
            Assets(cli.session, plural, registry_name).set_archived(name, version, label, archived)

        return act

    for verb, archived, text in (("archive", True, "Hide"), ("restore", False, "Show again in lists")):
        command = _options(_name, _version, _label, _registry)(set_archived(archived))
        group.command(verb, cls=ApiCommand, help=f"{text}: one version, or all of a name.")(command)

    @group.command(cls=ApiCommand)
    @_options(_name, _version, _label, _sets, _registry)
    def update(
        cli: Cli,
        name: str,
        version: str | None,
        label: str | None,
        sets: tuple[str, ...],
        registry_name: str | None,
    ) -> None:
        """Change the description, tags, properties or stage: --set description=… tags.NAME=…"""
        assets = Assets(cli.session, plural, registry_name)
        cli.show(documents.version(assets.update(name, version, label, _changes(sets))), VERSION_COLUMNS)

    return group


def _changes(assignments: tuple[str, ...]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        group, dot, key = field.partition(".")
        if equals and field in ("description", "stage"):
            changes[field] = value
        elif equals and dot and key and group in ("tags", "properties"):
            changes.setdefault(group, {})[key] = value
        else:
            raise click.UsageError(
                f"'{assignment}' can not be set: versions do not change but for description=, stage=, "
                "tags.NAME= and properties.NAME=."
            )
    if not changes:
        raise click.UsageError("Nothing to change: give --set FIELD=VALUE.")
    return changes


def _create(
    cli: Cli,
    *,
    loader: str,
    operations: str,
    plural: str,
    file: str | None,
    sets: tuple[str, ...],
    tags: tuple[str, ...] = (),
    registry_name: str | None = None,
    **fields: Any,
) -> None:
    """Create an asset from a YAML file, flags, or both (flags win), through the SDK."""
    from noriba.cli import sdk

    client = sdk.client(cli, registry=registry_name)
    overrides = sdk.overrides_of(sets, **fields)
    for tag in tags:
        name, equals, value = tag.partition("=")
        if not equals:
            raise click.UsageError(f"--tags takes NAME=VALUE, not '{tag}'.")
        overrides.append({f"tags.{name}": value})
    described = sdk.load(loader, file, overrides) if file else sdk.describe(loader, overrides)
    with sdk.readable_errors():
        created = getattr(client, operations).create_or_update(described)
    document = Assets(cli.session, plural, registry_name).get(created.name, str(created.version), None)
    cli.show(documents.version(document), VERSION_COLUMNS)


environment = _group("environment", "environments", "environments")
data = _group("data", "data", "data assets")
model = _group("model", "models", "models")
component = _group("component", "components", "components")
code = _group("code", "codes", "uploaded code")


@environment.command("create", cls=ApiCommand)
@_options(
    _file, click.option("--name", "-n", help="Name of the environment."), _version, _description, _tags, _sets
)
@click.option("--image", "-i", help="Container image.")
@click.option("--conda-file", "-c", type=click.Path(), help="conda file.")
@click.option("--build-context", "-b", type=click.Path(), help="Folder with a Dockerfile.")
@click.option("--dockerfile-path", "-d", help="Dockerfile, relative to the build context.")
@click.option("--os-type", help="linux")
@click.option("--datastore", help="Datastore to upload to.")
@_registry
def create_environment(
    cli: Cli,
    file: str | None,
    conda_file: str | None,
    build_context: str | None,
    dockerfile_path: str | None,
    sets: tuple[str, ...],
    **fields: Any,
) -> None:
    """Create an environment, from a file or from an image and a conda file."""
    build = {
        "path": build_context and str(Path(build_context).absolute()),
        "dockerfile_path": dockerfile_path,
    }
    fields |= {f"build.{key}": value for key, value in build.items()}
    if conda_file:
        fields["conda_file"] = str(Path(conda_file).absolute())
    _create(
        cli,
        loader="load_environment",
        operations="environments",
        plural="environments",
        file=file,
        sets=sets,
        **fields,
    )


@data.command("create", cls=ApiCommand)
@_options(
    _file, click.option("--name", "-n", help="Name of the data asset."), _version, _description, _tags, _sets
)
@click.option("--path", "-p", help="File or folder here, or an address.")
@click.option("--type", "-t", type=click.Choice(["uri_file", "uri_folder", "mltable"]), help="Kind of data.")
@click.option("--datastore", help="Datastore to upload to.")
@click.option("--skip-validation", is_flag=True, hidden=True, expose_value=False)
@_registry
def create_data(cli: Cli, file: str | None, path: str | None, sets: tuple[str, ...], **fields: Any) -> None:
    """Create a data asset, uploading it when it is local."""
    fields["path"] = _absolute(path)
    _create(cli, loader="load_data", operations="data", plural="data", file=file, sets=sets, **fields)


@model.command("create", cls=ApiCommand)
@_options(
    _file, click.option("--name", "-n", help="Name of the model."), _version, _description, _tags, _sets
)
@click.option("--path", "-p", help="File or folder here, or an address.")
@click.option(
    "--type", "-t", type=click.Choice(["custom_model", "mlflow_model", "triton_model"]), help="Kind."
)
@click.option("--stage", "-s", help="Stage, such as Development or Production.")
@click.option("--datastore", help="Datastore to upload to.")
@_registry
def create_model(cli: Cli, file: str | None, path: str | None, sets: tuple[str, ...], **fields: Any) -> None:
    """Register a model, uploading it when it is local."""
    fields["path"] = _absolute(path)
    _create(cli, loader="load_model", operations="models", plural="models", file=file, sets=sets, **fields)


@component.command("create", cls=ApiCommand)
@_options(click.option("--file", "-f", required=True, type=click.Path(), help="YAML file of the component."))
@_options(click.option("--name", "-n", help="Name of the component."), _version, _sets)
@click.option("--skip-validation", is_flag=True, hidden=True, expose_value=False)
@_registry
def create_component(cli: Cli, file: str, sets: tuple[str, ...], **fields: Any) -> None:
    """Create a component."""
    _create(
        cli,
        loader="load_component",
        operations="components",
        plural="components",
        file=file,
        sets=sets,
        **fields,
    )


@model.command("download", cls=ApiCommand)
@_options(_name, _version, _label)
@click.option(
    "--download-path", "-p", type=click.Path(path_type=Path), default=Path(), help="Folder to put it. [.]"
)
def download_model(cli: Cli, name: str, version: str | None, label: str | None, download_path: Path) -> None:
    """Download a model's files to a folder with its name."""
    from noriba.cli.progress import downloading

    document = Assets(cli.session, "models").get(name, version, label)
    address = str(document["properties"]["modelUri"])
    folder = download_path / name / address.rstrip("/").rpartition("/")[2]
    with downloading(cli.session) as downloader:
        count = downloader.fetch_as(address, folder)
    note(f"{count} file{'' if count == 1 else 's'} to {folder}")


def _share(group: click.Group, operations: str) -> None:
    @group.command(cls=ApiCommand)
    @_options(_name, click.option("--version", "-v", required=True, help="Version to share."))
    @click.option("--share-with-name", help="Name in the registry, if not the same.")
    @click.option("--share-with-version", help="Version in the registry, if not the same.")
    @click.option("--registry-name", required=True, help="Registry to share to.")
    def share(
        cli: Cli,
        name: str,
        version: str,
        share_with_name: str | None,
        share_with_version: str | None,
        registry_name: str,
    ) -> None:
        """Copy a version from the workspace to a registry."""
        from noriba.cli import sdk

        client = sdk.client(cli)
        with sdk.readable_errors():
            getattr(client, operations).share(
                name=name,
                version=version,
                share_with_name=share_with_name or name,
                share_with_version=share_with_version or version,
                registry_name=registry_name,
            )


for _shared, _operations in (
    (environment, "environments"),
    (data, "data"),
    (model, "models"),
    (component, "components"),
):
    _share(_shared, _operations)


def _absolute(path: str | None) -> str | None:
    """A local path so that it means the same wherever the YAML file is; addresses as they are."""
    return str(Path(path).absolute()) if path and Path(path).exists() else path
