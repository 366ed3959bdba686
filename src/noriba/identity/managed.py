"""Managed identities of workspaces (product.md R13)."""

from __future__ import annotations

import uuid

import msgspec
import sqlalchemy as sa

from noriba.database.tables import principals, role_assignments
from noriba.models.errors import BadRequest
from noriba.models.workspace import Workspace
from noriba.services import Services


class ManagedIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A managed identity: ``principal_id`` in tokens, ``client_id`` in jobs and code."""

    principal_id: str
    client_id: str


def workspace_identity_id(workspace_id: str) -> str:
    """The object id of the identity that every workspace has."""
    return str(uuid.uuid5(uuid.UUID(workspace_id), "managed-identity"))


async def managed_identity_of(
    services: Services, workspace: Workspace, *, client_id: str | None
) -> ManagedIdentity:
    """The workspace's managed identity with that client id, or its own when none is named; made when missing.

    Raises BadRequest when the workspace has no such identity.
    """
    principal_id = workspace_identity_id(workspace.id)
    own = ManagedIdentity(
        principal_id=principal_id, client_id=str(uuid.uuid5(uuid.UUID(principal_id), "client-id"))
    )
    if client_id and client_id.lower() != own.client_id:
        found = await services.database.read(
            lambda connection: _attached(connection, workspace.id, client_id)
        )
        if found is None:
            raise BadRequest(
                f"The workspace has no managed identity with client id '{client_id}'. Leave client_id out to use the "
                f"workspace's own ({own.client_id}).",
                target="identity.clientId",
                code="ManagedIdentityNotFound",
            )
        return found
    now = services.clock()

    def ensure(connection: sa.Connection) -> None:
        known = connection.execute(
            sa.select(principals.c.id).where(principals.c.id == principal_id)
        ).one_or_none()
        if known is not None:
            return
        tenant = connection.execute(sa.select(principals.c.tenant_id).limit(1)).scalar_one()
        connection.execute(
            principals.insert().values(
                id=principal_id,
                kind="managed_identity",
                name=f"{workspace.name} (managed identity)",
                client_id=own.client_id,
                tenant_id=tenant,
                created_at=now,
                disabled=False,
            )
        )
        connection.execute(
            role_assignments.insert().values(
                principal_id=principal_id, workspace_id=workspace.id, role="Contributor"
            )
        )

    await services.database.write(ensure)
    return own


def _attached(connection: sa.Connection, workspace_id: str, client_id: str) -> ManagedIdentity | None:
    row = connection.execute(
        sa.select(principals.c.id, principals.c.client_id)
        .join(role_assignments, role_assignments.c.principal_id == principals.c.id)
        .where(
            principals.c.kind == "managed_identity",
            principals.c.client_id == client_id,
            role_assignments.c.workspace_id == workspace_id,
        )
    ).one_or_none()
    return None if row is None else ManagedIdentity(principal_id=row.id, client_id=row.client_id)
