"""Two servers on one database and one object store: neither loses what the other acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from noriba.database import Database, blob_tables
from noriba.database.migrate import upgrade
from noriba.models.errors import Conflict, PreconditionFailed
from noriba.storage import editing, index
from noriba.storage.appending import append
from noriba.storage.blobs import BlobStore
from noriba.storage.compaction import compact
from noriba.storage.model import BlobHeaders, Conditions
from noriba.storage.objects import open_objects
from noriba.storage.sweep import sweep
from tests.storage.conftest import ACCOUNT, CONTAINER

X = (ACCOUNT, CONTAINER, "x")


@pytest.fixture
async def pair(postgresql: Callable[[], str], tmp_path: Path) -> AsyncIterator[list[BlobStore]]:
    url = postgresql()
    databases = [Database(url), Database(url)]
    upgrade(databases[0])
    stores = [BlobStore(database, open_objects(str(tmp_path / "objects"), {})) for database in databases]
    await stores[0].ensure_container(ACCOUNT, CONTAINER)
    yield stores
    for store in stores:
        await store.stop()
        store.database.close()


async def test_only_one_creates(pair: list[BlobStore]) -> None:
    for turn in range(10):
        results = await asyncio.gather(
            *(
                store.put(ACCOUNT, CONTAINER, f"x{turn}", b"1", conditions=Conditions(if_none_match=("*",)))
                for store in pair * 3
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(result, Conflict) for result in results) == 5, results


async def test_overwrites_leave_one_content(pair: list[BlobStore]) -> None:
    for turn in range(10):
        bodies = [bytes([turn, n]) * 50 for n in range(40)]
        await asyncio.gather(*(pair[n % 2].put(*X, body) for n, body in enumerate(bodies)))
        data = await pair[0].read_all(*X)
        assert data in bodies
    for store in pair:
        store.reading_grace_s = 0
    now = pair[0].clock() + 1
    await asyncio.gather(*(sweep(store, now) for store in pair * 3))
    left = await pair[0].database.read(
        lambda c: c.execute(sa.select(blob_tables.blob_segments.c.content_id)).scalars().all()
    )
    assert left == [(await pair[0].get(*X)).content_id]
    assert await pair[1].read_all(*X) == data


def test_a_write_waits_for_another_and_sees_what_it_did(postgresql: Callable[[], str]) -> None:
    database = Database(postgresql())
    upgrade(database)
    engine = sa.create_engine(database.url)

    def replace(connection: sa.Connection, content_id: int) -> None:
        new = index.Replacement(
            kind="BlockBlob", content_id=content_id, size=0, headers=BlobHeaders(), metadata={}, tags={}
        )
        index.replace_blob(connection, *X, new, Conditions(), 0)

    with engine.begin() as connection:
        index.insert_container(connection, ACCOUNT, CONTAINER, {}, 0)
        replace(connection, 1)

    def second() -> None:
        with engine.begin() as connection:
            replace(connection, 3)

    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            replace(connection, 2)
            other = pool.submit(second)
            with engine.connect() as watching:
                while not watching.execute(waiting).scalar_one():
                    watching.rollback()
                    assert not other.done(), "it did not wait"
        other.result()
    with engine.connect() as connection:
        garbage = connection.execute(sa.select(blob_tables.blob_garbage.c.content_id)).scalars().all()
        assert sorted(garbage) == [1, 2]
        assert index.get_blob(connection, *X).content_id == 3
    engine.dispose()
    database.close()


async def test_conditional_updates_are_not_lost(pair: list[BlobStore]) -> None:
    await pair[0].put(*X, b"", metadata={"count": "0"})

    async def increment(store: BlobStore) -> None:
        while True:
            blob = await store.get(*X)
            try:
                await editing.set_metadata(
                    store,
                    *X,
                    {"count": str(int(blob.metadata["count"]) + 1)},
                    conditions=Conditions(if_match=(blob.etag,)),
                )
            except PreconditionFailed:
                continue
            return

    await asyncio.gather(*(increment(store) for store in pair * 8))
    assert (await pair[0].get(*X)).metadata == {"count": "16"}


async def test_appends_of_both_are_kept_while_both_compact(pair: list[BlobStore]) -> None:
    await pair[0].put(*X, b"", kind="AppendBlob")
    content_id = (await pair[0].get(*X)).content_id
    lines = [b"%04d\n" % number * 2000 for number in range(80)]

    async def write(number: int) -> None:
        await append(pair[number % 2], *X, lines[number])
        if number % 10 == 0:
            # Whichever loses the race for the same segments leaves them to the other.
            await asyncio.gather(*(compact(store, content_id) for store in pair))

    await asyncio.gather(*(write(number) for number in range(len(lines))))
    held = await pair[0].read_all(*X)
    assert Counter(held.splitlines()) == Counter(line for each in lines for line in each.splitlines())
