"""Blob stores on every kind of database and object store that tests can have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from noriba.database import Database
from noriba.database.migrate import upgrade
from noriba.database.types import metadata
from noriba.storage.blobs import BlobStore
from noriba.storage.objects import open_objects

ACCOUNT = "acct"
CONTAINER = "con"


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def shared_postgresql(postgresql: Callable[[], str]) -> str:
    """One database for all tests here: making its schema takes longer than most of them."""
    url = postgresql()
    database = Database(url)
    upgrade(database)
    database.close()
    return url


@pytest.fixture(params=["sqlite-folder", "sqlite-memory", "postgresql-folder"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[BlobStore]:
    """A blob store with the container ``con`` in the account ``acct``."""
    kind, objects = request.param.split("-")
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path}/noriba.db"
    else:
        url = request.getfixturevalue("shared_postgresql")
    database = Database(url)
    if kind == "sqlite":
        upgrade(database)
    else:
        names = ", ".join(table.name for table in metadata.sorted_tables if table.name.startswith("blob"))
        database.write_now(lambda connection: connection.execute(sa.text(f"TRUNCATE {names}")))
    made = BlobStore(
        database,
        open_objects(str(tmp_path / "objects") if objects == "folder" else "memory:///", {}),
        clock=clock,
    )
    await made.ensure_container(ACCOUNT, CONTAINER)
    yield made
    await made.stop()
    database.close()


async def collect(chunks: AsyncIterator[bytes]) -> bytes:
    """All chunks joined."""
    return b"".join([chunk async for chunk in chunks])


async def stream(*parts: bytes) -> AsyncIterator[bytes]:
    """Parts as a body that arrives one by one."""
    for part in parts:
        yield part
