"""What a new home starts with: a workspace, its datastores, and the local user who owns everything."""

from __future__ import annotations

import getpass
import uuid

import sqlalchemy as sa

from noriba.database import Database
from noriba.database.tables import meta, workspaces
from noriba.home import Credentials, Home
from noriba.identity.keys import new_secret
from noriba.identity.principals import insert_principal
from noriba.settings import Settings
from noriba.workspaces import insert_workspace, workspace_key


def bootstrap(database: Database, home: Home, settings: Settings, now: float) -> None:
    """Make what is missing; does nothing on a home that has been started before."""
    credentials = home.credentials() or Credentials(user=_user_name(), secret=new_secret())

    def create(connection: sa.Connection) -> None:
        tenant = connection.execute(
            sa.select(meta.c.value).where(meta.c.key == "tenant_id")
        ).scalar_one_or_none()
        if tenant is None:
            tenant = str(uuid.uuid4())
            connection.execute(meta.insert().values(key="tenant_id", value=tenant))
            insert_principal(
                connection,
                name=credentials.user,
                kind="user",
                tenant_id=tenant,
                secret=credentials.secret,
                roles={"*": "Owner"},
                now=now,
            )
        first = settings.workspace
        key = workspace_key(first.subscription_id, first.resource_group, first.name)
        if (
            connection.execute(sa.select(workspaces.c.id).where(workspaces.c.key == key)).one_or_none()
            is None
        ):
            insert_workspace(
                connection,
                subscription_id=first.subscription_id,
                resource_group=first.resource_group,
                name=first.name,
                location=first.location,
                document={},
                created_by=credentials.user,
                now=now,
            )

    # The secret is on disk before the database knows it: a crash in between is mended by the next start.
    home.write_credentials(credentials)
    database.write_now(create)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"
