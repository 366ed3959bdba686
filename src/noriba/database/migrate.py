"""Bring a database to the newest schema."""

from __future__ import annotations

from noriba.database import blob_tables, tables, tracking_tables
from noriba.database.connection import Database
from noriba.database.types import metadata

__all__ = ["upgrade"]
_MODULES = (tables, blob_tables, tracking_tables)


def upgrade(database: Database) -> None:
    """Create or migrate all tables."""
    metadata.create_all(database.writer_engine)
