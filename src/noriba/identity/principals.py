"""Principals in the database: users, managed identities, and their roles."""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from noriba.database import Database
from noriba.database.tables import principals as principals_table
from noriba.database.tables import role_assignments
from noriba.identity.keys import hash_secret
from noriba.models.errors import Unauthenticated
from noriba.models.principal import Principal, PrincipalKind


class Principals:
    """Looks principals up, with a small cache that changes through here keep true."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_id: dict[str, Principal] = {}

    async def by_id(self, principal_id: str) -> Principal:
        """The principal with that object id. Raises Unauthenticated when it is gone or disabled."""
        found = self._by_id.get(principal_id)
        if found is None:
            found = await self._database.read(
                lambda connection: _load(connection, principals_table.c.id == principal_id)
            )
            if found is None:
                raise Unauthenticated(
                    "The user of this token does not exist any more.", code="PrincipalNotFound"
                )
            self._by_id[principal_id] = found
        return found

    async def by_secret(self, secret: str) -> Principal | None:
        """The principal whose secret this is."""
        digest = hash_secret(secret)
        return await self._database.read(
            lambda connection: _load(connection, principals_table.c.secret_hash == digest)
        )

    def forget(self) -> None:
        """Drop what is cached, after roles or principals changed."""
        self._by_id.clear()


def _load(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> Principal | None:
    row = connection.execute(
        sa.select(principals_table).where(condition, principals_table.c.disabled.is_(False))
    ).one_or_none()
    if row is None:
        return None
    roles = connection.execute(
        sa.select(role_assignments.c.workspace_id, role_assignments.c.role).where(
            role_assignments.c.principal_id == row.id
        )
    )
    return Principal(
        id=row.id,
        kind=row.kind,
        name=row.name,
        tenant_id=row.tenant_id,
        roles={row.workspace_id: row.role for row in roles},
    )


def insert_principal(
    connection: sa.Connection,
    *,
    name: str,
    kind: PrincipalKind,
    tenant_id: str,
    secret: str | None,
    roles: dict[str, str],
    now: float,
) -> str:
    """Add a principal; returns its id. ``roles`` maps workspace ids (or ``*``) to role names."""
    principal_id = str(uuid.uuid4())
    connection.execute(
        principals_table.insert().values(
            id=principal_id,
            kind=kind,
            name=name,
            client_id=str(uuid.uuid4()),
            tenant_id=tenant_id,
            secret_hash=hash_secret(secret) if secret else None,
            created_at=now,
            disabled=False,
        )
    )
    for workspace_id, role in roles.items():
        connection.execute(
            role_assignments.insert().values(principal_id=principal_id, workspace_id=workspace_id, role=role)
        )
    return principal_id
