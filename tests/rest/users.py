"""Further users of a server under test."""

from __future__ import annotations

import time
import uuid

import httpx
import sqlalchemy as sa

from noriba.database import Database
from noriba.database.tables import principals
from noriba.identity.keys import new_secret
from noriba.identity.principals import insert_principal
from tests.server import ServerProcess


def client_with_roles(server: ServerProcess, roles: dict[str, str]) -> httpx.Client:
    """A client signed in as a new user with ``roles`` (workspace id or ``*`` to role)."""
    secret = new_secret()
    database = Database(server.info.database, readers=1)

    def insert(connection: sa.Connection) -> None:
        tenant = connection.execute(sa.select(principals.c.tenant_id).limit(1)).scalar_one()
        insert_principal(
            connection,
            name=f"user-{uuid.uuid4().hex[:8]}",
            kind="user",
            tenant_id=tenant,
            secret=secret,
            roles=roles,
            now=time.time(),
        )

    try:
        database.write_now(insert)
    finally:
        database.close()
    return server.client(secret=secret)


def workspace_id(client: httpx.Client, path: str) -> str:
    """The GUID of a workspace."""
    return str(client.get(path).json()["properties"]["workspaceId"])
