"""Bring a database to the newest schema, with Alembic. Starting on a database that is current costs one query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from noriba.database import blob_tables, tables, tracking_tables
from noriba.database.connection import Database, DatabaseError
from noriba.database.types import metadata

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["HEAD", "MIGRATIONS", "VERSION_TABLE", "metadata", "revisions", "upgrade"]

HEAD = "0001"
"""The newest revision (a test compares it with the scripts)."""
MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "noriba_schema_version"
_MODULES = (tables, blob_tables, tracking_tables)
"""Importing them fills ``metadata``."""


def upgrade(database: Database) -> None:
    """Create or migrate all tables. Raises DatabaseError when the database was made by a newer version."""
    current = _current(database.writer_engine)
    if current == HEAD:
        return
    if current is not None and current not in revisions():
        raise DatabaseError(
            f"The database has schema {current}, which this version does not know. Upgrade Noriba, or use another "
            "database."
        )
    from alembic import command

    try:
        with database.writer_engine.begin() as connection:
            command.upgrade(_config(connection), "head")
    except sa.exc.DBAPIError as error:
        raise DatabaseError(
            f"The database could not be brought to schema {HEAD}: {error.orig}. It is as it was before. If it is not "
            "Noriba's, use another one."
        ) from error


def revisions() -> list[str]:
    """The revisions of the scripts, oldest first."""
    return sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _current(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return None
        found = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()
        return None if found is None else str(found)


def _config(connection: sa.Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config
