"""Upload slots: each version that is uploaded before it is created has a container of its own (wire.md 3.2)."""

from __future__ import annotations

import uuid

import msgspec
import sqlalchemy as sa

from noriba.assets.locations import own_container_url
from noriba.assets.urls import REGISTRY_ACCOUNT
from noriba.database.tables import pending_uploads as table
from noriba.models.asset import AssetKind
from noriba.models.errors import NotFound
from noriba.models.workspace import Workspace
from noriba.services import Services
from noriba.storage import sas
from noriba.storage.index import insert_container

LIFETIME_S = 24 * 3600.0
"""How long a slot's signature is good; asking again gives a new one."""


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A slot: the container's ``url``, and the signature (``sas``, no ``?``) that opens it for reading and writing."""

    id: str
    url: str
    sas: str


async def start(
    services: Services, scope: str, account: str, kind: AssetKind, name: str, version: str
) -> Upload:
    """The slot of a version in a scope, made with its container in ``account`` when it is first asked for."""
    new_id, now = str(uuid.uuid4()), services.clock()
    if account == REGISTRY_ACCOUNT:
        new_id = f"reg-{new_id}"

    def write(connection: sa.Connection) -> str:
        found = connection.execute(
            sa.select(table.c.id).where(
                table.c.scope == scope,
                table.c.kind == kind,
                table.c.key == name.lower(),
                table.c.version == version,
            )
        ).scalar_one_or_none()
        if found is not None:
            return str(found)
        insert_container(connection, account, new_id, {}, now)
        connection.execute(
            table.insert().values(
                id=new_id,
                scope=scope,
                kind=kind,
                key=name.lower(),
                version=version,
                account=account,
                container=new_id,
                created_at=now,
            )
        )
        return new_id

    try:
        slot = await services.database.write(write)
    except sa.exc.IntegrityError:
        # Another replica of the server made it at the same moment.
        slot = await services.database.write(write)
    return _opened(services, account, slot, sas.WRITE)


async def reopen(services: Services, scope: str, container: str) -> Upload:
    """A slot of a scope by its container, for reading. Raises NotFound."""
    row = await services.database.read(
        lambda connection: connection.execute(
            sa.select(table.c.account, table.c.container).where(
                table.c.id == container, table.c.scope == scope
            )
        ).one_or_none()
    )
    if row is None:
        raise NotFound("There are no such files here.", code="BlobNotFound", target=container)
    return _opened(services, row.account, row.container, sas.READ)


def _opened(services: Services, account: str, container: str, permissions: str) -> Upload:
    key = services.keys.account_key(account)
    expires_at = services.clock() + LIFETIME_S
    return Upload(
        id=container,
        url=own_container_url(services.base_url, account, container),
        sas=sas.container_sas(key, account, container, permissions, expires_at),
    )


def account_id(workspace: Workspace) -> str:
    """The resource id under which a workspace's storage account is published."""
    return (
        f"/subscriptions/{workspace.subscription_id}/resourceGroups/{workspace.resource_group}"
        f"/providers/Microsoft.Storage/storageAccounts/{workspace.storage_account}"
    )
