"""The database: tables, one group-committing writer, readers, migrations."""

from noriba.database.connection import Database, DatabaseError

__all__ = ["Database", "DatabaseError"]
