"""The schema that migrations make is the one the code expects, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from noriba.database import Database, DatabaseError
from noriba.database.migrate import HEAD, VERSION_TABLE, metadata, revisions, upgrade


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'noriba.db'}"
    create: Callable[[], str] = request.getfixturevalue("postgresql")
    return create()


def test_migrations_make_the_schema_of_the_tables(url: str) -> None:
    database = Database(url)
    upgrade(database)
    upgrade(database)  # again does nothing
    with database.writer_engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": False,
                "include_object": lambda item, name, kind, *_: name != VERSION_TABLE,
            },
        )
        assert compare_metadata(context, metadata) == []
    database.close()


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    database = Database(url)
    upgrade(database)
    with database.writer_engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="Upgrade Noriba"):
        upgrade(database)
    database.close()


def test_head_is_the_newest_script() -> None:
    assert revisions()[-1] == HEAD


def test_a_database_that_is_not_ours_is_left_alone(url: str) -> None:
    database = Database(url)
    with database.writer_engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE jobs (theirs INTEGER)"))
    with pytest.raises(DatabaseError, match="jobs"):
        upgrade(database)
    with database.writer_engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["jobs"]
    database.close()
