"""Datastores: the built-in ones that every workspace has, and those that users add (wire.md 2.2)."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from noriba.database.tables import datastores as table
from noriba.models.errors import BadRequest, Conflict, NotFound
from noriba.models.workspace import Workspace
from noriba.storage.index import insert_container

DEFAULT = "workspaceblobstore"
ARTIFACTS = "workspaceartifactstore"


class BuiltIn(NamedTuple):
    """A datastore that every workspace has, in a container of the workspace's own storage account."""

    type: str
    container: str


BUILT_IN = {
    DEFAULT: BuiltIn("AzureBlob", "azureml-blobstore"),
    ARTIFACTS: BuiltIn("AzureBlob", "azureml"),
    "workspacefilestore": BuiltIn("AzureFile", "azureml-filestore"),
    "workspaceworkingdirectory": BuiltIn("AzureFile", "code"),
}

CONTAINER_FIELDS = {
    "AzureBlob": "containerName",
    "AzureDataLakeGen2": "filesystem",
    "AzureFile": "fileShareName",
}
"""For each type of datastore that holds files of a storage account: the property that names the container."""

TYPES = (*CONTAINER_FIELDS, "AzureDataLakeGen1", "Hdfs", "OneLake")

_NAME = re.compile(r"[a-zA-Z0-9_]{1,255}")


class Datastore(msgspec.Struct, frozen=True, kw_only=True):
    """A datastore. ``properties`` are as on the wire, without secrets; those are in ``secrets``, sealed."""

    workspace_id: str
    name: str
    is_default: bool
    properties: dict[str, Any]
    secrets: bytes | None
    created_at: float
    created_by: str
    modified_at: float

    @property
    def type(self) -> str:
        """``AzureBlob`` …, one of TYPES."""
        return str(self.properties["datastoreType"])

    @property
    def is_built_in(self) -> bool:
        return self.name in BUILT_IN

    @property
    def container(self) -> str:
        """The container, file system or share that holds its files. Raises BadRequest for types without one."""
        field = CONTAINER_FIELDS.get(self.type)
        if field is None:
            raise BadRequest(
                f"Datastore '{self.name}' is of type {self.type}, which jobs can not read yet. "
                f"Use one of type {', '.join(CONTAINER_FIELDS)}.",
                code="UnsupportedDatastoreType",
                target=self.name,
            )
        return str(self.properties[field])


def insert_built_in(connection: sa.Connection, workspace: Workspace, *, created_by: str, now: float) -> None:
    """Give a new workspace its datastores and their containers, all in the caller's transaction."""
    for name, kind in BUILT_IN.items():
        insert_container(connection, workspace.storage_account, kind.container, {}, now)
        connection.execute(
            table.insert().values(
                workspace_id=workspace.id,
                key=name,
                name=name,
                is_default=name == DEFAULT,
                properties={"datastoreType": kind.type, CONTAINER_FIELDS[kind.type]: kind.container},
                secrets=None,
                created_at=now,
                created_by=created_by,
                modified_at=now,
            )
        )


def find(connection: sa.Connection, workspace_id: str, name: str) -> Datastore | None:
    """The datastore of that name (in any case)."""
    row = connection.execute(
        sa.select(table).where(table.c.workspace_id == workspace_id, table.c.key == name.lower())
    ).one_or_none()
    return None if row is None else _of(row)


def get(connection: sa.Connection, workspace_id: str, name: str) -> Datastore:
    """The datastore of that name. Raises NotFound."""
    found = find(connection, workspace_id, name)
    if found is None:
        raise NotFound(
            f"There is no datastore '{name}' in this workspace. See the existing ones with: "
            "noriba datastore list",
            code="DatastoreNotFound",
            target=name,
        )
    return found


def get_default(connection: sa.Connection, workspace_id: str) -> Datastore:
    """The workspace's default datastore."""
    row = connection.execute(
        sa.select(table).where(table.c.workspace_id == workspace_id, table.c.is_default)
    ).one()
    return _of(row)


def page(
    connection: sa.Connection,
    workspace_id: str,
    *,
    after: str = "",
    limit: int,
    is_default: bool | None = None,
    names: tuple[str, ...] = (),
    search: str = "",
) -> list[Datastore]:
    """At most ``limit`` datastores in order of name, those whose name comes after ``after``."""
    statement = sa.select(table).where(table.c.workspace_id == workspace_id, table.c.key > after.lower())
    if is_default is not None:
        statement = statement.where(table.c.is_default.is_(is_default))
    if names:
        statement = statement.where(table.c.key.in_([name.lower() for name in names]))
    if search:
        statement = statement.where(table.c.key.contains(search.lower(), autoescape=True))
    return [_of(row) for row in connection.execute(statement.order_by(table.c.key).limit(limit))]


def put(
    connection: sa.Connection,
    workspace_id: str,
    name: str,
    properties: dict[str, Any],
    secrets: bytes | None,
    *,
    is_default: bool,
    created_by: str,
    now: float,
) -> tuple[Datastore, bool]:
    """Create or replace a datastore; returns it and whether it is new. ``secrets`` None keeps those it has.

    A built-in one takes a description and tags only, or becomes the default. Raises Conflict when more is asked.
    """
    check_name(name)
    existing = find(connection, workspace_id, name)
    if existing is None:
        connection.execute(
            table.insert().values(
                workspace_id=workspace_id,
                key=name.lower(),
                name=name,
                is_default=False,
                properties=properties,
                secrets=secrets,
                created_at=now,
                created_by=created_by,
                modified_at=now,
            )
        )
    else:
        values: dict[str, Any] = {"properties": properties, "modified_at": now}
        if existing.is_built_in:
            values["properties"] = _changed_built_in(existing, properties)
        elif secrets is not None or properties.get("credentials") != existing.properties.get("credentials"):
            values["secrets"] = secrets
        connection.execute(
            table.update()
            .where(table.c.workspace_id == workspace_id, table.c.key == name.lower())
            .values(**values)
        )
    if is_default and not (existing and existing.is_default):
        mine = table.c.workspace_id == workspace_id
        connection.execute(table.update().where(mine, table.c.is_default).values(is_default=False))
        connection.execute(table.update().where(mine, table.c.key == name.lower()).values(is_default=True))
    return get(connection, workspace_id, name), existing is None


def _changed_built_in(existing: Datastore, properties: dict[str, Any]) -> dict[str, Any]:
    field = CONTAINER_FIELDS[existing.type]
    if properties.get("datastoreType") != existing.type or properties.get(field) != existing.container:
        raise Conflict(
            f"'{existing.name}' belongs to the workspace and can not be pointed elsewhere. "
            "Create a datastore with another name.",
            code="BuiltInDatastore",
            target=existing.name,
        )
    changed: dict[str, Any] = {"datastoreType": existing.type, field: existing.container}
    return changed | {name: properties[name] for name in ("description", "tags") if name in properties}


def delete(connection: sa.Connection, workspace_id: str, name: str) -> bool:
    """Delete a datastore (not what it holds); False when there is none. Raises Conflict for one that is needed."""
    existing = find(connection, workspace_id, name)
    if existing is None:
        return False
    if existing.is_built_in:
        raise Conflict(
            f"'{existing.name}' belongs to the workspace and can not be deleted.",
            code="BuiltInDatastore",
            target=name,
        )
    if existing.is_default:
        raise Conflict(
            f"'{existing.name}' is the default datastore. Make another one the default first.",
            code="DefaultDatastore",
            target=name,
        )
    connection.execute(
        table.delete().where(table.c.workspace_id == workspace_id, table.c.key == name.lower())
    )
    return True


def check_name(name: str) -> None:
    """Raise BadRequest unless a datastore can have this name."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"'{name}' can not be the name of a datastore. Use 1 to 255 letters, digits and underscores.",
            code="InvalidName",
            target="name",
        )


def _of(row: sa.Row[Any]) -> Datastore:
    return Datastore(
        workspace_id=row.workspace_id,
        name=row.name,
        is_default=row.is_default,
        properties=row.properties,
        secrets=row.secrets,
        created_at=row.created_at,
        created_by=row.created_by,
        modified_at=row.modified_at,
    )
