"""Workspaces in the database."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from noriba.database import Database
from noriba.database.blob_tables import blob_containers
from noriba.database.tables import jobs
from noriba.database.tables import workspaces as table
from noriba.database.tracking_tables import logged_models, runs
from noriba.database.types import metadata
from noriba.datastores import insert_built_in
from noriba.models.errors import BadRequest, Conflict, NotFound
from noriba.models.job import TERMINAL
from noriba.models.workspace import Workspace


def workspace_key(subscription_id: str, resource_group: str, name: str) -> str:
    """What identifies a workspace without regard to case."""
    return f"{subscription_id}/{resource_group}/{name}".lower()


class Workspaces:
    """Looks workspaces up by path or id, with a cache that is dropped on change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_key: dict[str, Workspace] = {}
        self._by_id: dict[str, Workspace] = {}
        self._by_account: dict[str, Workspace] = {}

    async def find(self, subscription_id: str, resource_group: str, name: str) -> Workspace:
        """The workspace that a path names. Raises NotFound."""
        key = workspace_key(subscription_id, resource_group, name)
        found = self._by_key.get(key)
        if found is None:
            found = await self._load(table.c.key == key)
            if found is None:
                raise NotFound(
                    f"There is no workspace '{name}' in resource group '{resource_group}'. "
                    "See the existing ones with: noriba workspace list",
                    target="workspace",
                )
            self._by_key[key] = found
        return found

    async def by_id(self, workspace_id: str) -> Workspace:
        """The workspace with that GUID. Raises NotFound."""
        found = self._by_id.get(workspace_id)
        if found is None:
            found = await self._load(table.c.id == workspace_id)
            if found is None:
                raise NotFound("There is no such workspace.", target="workspace")
            self._by_id[workspace_id] = found
        return found

    async def by_account(self, account: str) -> Workspace:
        """The workspace that owns a storage account. Raises NotFound."""
        found = self._by_account.get(account)
        if found is None:
            found = await self._load(table.c.storage_account == account)
            if found is None:
                raise NotFound(f"There is no storage account '{account}'.", code="AccountNotFound")
            self._by_account[account] = found
        return found

    async def _load(self, condition: sa.ColumnElement[bool]) -> Workspace | None:
        row = await self._database.read(
            lambda connection: connection.execute(sa.select(table).where(condition)).one_or_none()
        )
        return None if row is None else workspace_of(row)

    def forget(self) -> None:
        """Drop what is cached, after a workspace was made or deleted."""
        self._by_key.clear()
        self._by_id.clear()
        self._by_account.clear()


def workspace_of(row: sa.Row[Any]) -> Workspace:
    """The workspace in a row of the table."""
    return Workspace(
        id=row.id,
        subscription_id=row.subscription_id,
        resource_group=row.resource_group,
        name=row.name,
        location=row.location,
        storage_account=row.storage_account,
    )


def insert_workspace(
    connection: sa.Connection,
    *,
    subscription_id: str,
    resource_group: str,
    name: str,
    location: str,
    document: dict[str, Any],
    created_by: str,
    now: float,
) -> Workspace:
    """Add a workspace with a new GUID, a storage account of its own and the built-in datastores."""
    workspace_id = str(uuid.uuid4())
    account = "ws" + hashlib.sha256(workspace_id.encode()).hexdigest()[:16]
    connection.execute(
        table.insert().values(
            id=workspace_id,
            subscription_id=subscription_id,
            resource_group=resource_group,
            name=name,
            key=workspace_key(subscription_id, resource_group, name),
            location=location,
            storage_account=account,
            document=document,
            created_at=now,
            created_by=created_by,
        )
    )
    workspace = Workspace(
        id=workspace_id,
        subscription_id=subscription_id,
        resource_group=resource_group,
        name=name,
        location=location,
        storage_account=account,
    )
    insert_built_in(connection, workspace, created_by=created_by, now=now)
    return workspace


def put_workspace(
    connection: sa.Connection,
    *,
    subscription_id: str,
    resource_group: str,
    name: str,
    location: str,
    document: dict[str, Any],
    created_by: str,
    now: float,
    check: Callable[[Workspace | None], None],
) -> tuple[Workspace, bool]:
    """Create a workspace, or give an existing one another document; returns it and whether it is new.

    ``check`` is given the existing one (or None) and raises if the caller may not go on.
    """
    key = workspace_key(subscription_id, resource_group, name)
    row = connection.execute(sa.select(table).where(table.c.key == key)).one_or_none()
    check(None if row is None else workspace_of(row))
    if row is None:
        made = insert_workspace(
            connection,
            subscription_id=subscription_id,
            resource_group=resource_group,
            name=name,
            location=location,
            document=document,
            created_by=created_by,
            now=now,
        )
        return made, True
    connection.execute(table.update().where(table.c.key == key).values(document=document))
    return workspace_of(row), False


def delete_workspace(connection: sa.Connection, workspace: Workspace, *, now: float) -> None:
    """Delete a workspace and all that is in it. Raises Conflict while it has jobs that are not over."""
    active = connection.execute(
        sa.select(jobs.c.name)
        .where(jobs.c.workspace_id == workspace.id, jobs.c.status.not_in([s.value for s in TERMINAL]))
        .order_by(jobs.c.sequence)
        .limit(4)
    ).scalars()
    names = list(active)
    if names:
        shown = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
        raise Conflict(
            f"Workspace '{workspace.name}' has jobs that are not over: {shown}. Wait for them or cancel them first.",
            code="WorkspaceInUse",
            target="workspace",
        )
    # Rows that name their owner by its key go before the owners do.
    for content in sorted(metadata.sorted_tables, key=lambda content: "workspace_id" in content.c):
        if content.name not in _KEEP and (condition := _belongs_to(content, workspace.id)) is not None:
            connection.execute(content.delete().where(condition))
    # As for a single container: the sweep empties them, their names are free at once.
    connection.execute(
        blob_containers.update()
        .where(blob_containers.c.account == workspace.storage_account)
        .values(account="", name=sa.cast(blob_containers.c.id, sa.Text), deleted_at=now)
    )
    connection.execute(table.delete().where(table.c.id == workspace.id))


_KEEP = frozenset({"nodes", "operations"})
"""Nodes outlive a workspace for as long as it takes to release them; operations are told of it."""


def _belongs_to(content: sa.Table, workspace_id: str) -> sa.ColumnElement[bool] | None:
    """Which rows of a table are the workspace's; None for tables that hold none."""
    columns = content.c
    if "workspace_id" in columns:
        return columns.workspace_id == workspace_id
    if "scope" in columns:
        return columns.scope == workspace_id
    for column, owner in (("run_key", runs), ("model_key", logged_models)):
        if column in columns:
            return columns[column].in_(sa.select(owner.c.key).where(owner.c.workspace_id == workspace_id))
    return None


_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{2,32}")
_GROUP = re.compile(r"[\w.()-]{1,90}")


def check_workspace_name(resource_group: str, name: str) -> None:
    """Raise BadRequest unless a workspace can have this name in a resource group of that name."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"'{name[:100]}' can not be the name of a workspace. Use 3 to 33 letters, digits, '-' and '_', the first "
            "of them a letter or digit.",
            code="InvalidName",
            target="workspace",
        )
    if not _GROUP.fullmatch(resource_group) or resource_group.endswith("."):
        raise BadRequest(
            f"'{resource_group[:100]}' can not be the name of a resource group. Use 1 to 90 letters, digits, '-', "
            "'_', '.' and parentheses.",
            code="InvalidName",
            target="resourceGroup",
        )
