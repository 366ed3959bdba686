"""A database of each kind for tests below the REST API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noriba.database import Database
from noriba.database.migrate import upgrade


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database with all tables."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path}/test.db")
    else:
        create: Callable[[], str] = request.getfixturevalue("postgresql")
        database = Database(create())
    upgrade(database)
    yield database
    database.close()
