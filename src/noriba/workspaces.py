"""Workspaces in the database."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import sqlalchemy as sa

from noriba.database import Database
from noriba.database.tables import workspaces as table
from noriba.models.errors import NotFound
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
    """Add a workspace with a new GUID and a storage account of its own."""
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
    return Workspace(
        id=workspace_id,
        subscription_id=subscription_id,
        resource_group=resource_group,
        name=name,
        location=location,
        storage_account=account,
    )
