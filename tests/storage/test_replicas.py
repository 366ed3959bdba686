"""Two servers on one database and one object store: neither loses what the other acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from noriba.database import Database, blob_tables
from noriba.database.migrate import upgrade
from noriba.models.errors import Conflict, PreconditionFailed
from noriba.storage import editing
from noriba.storage.appending import append
from noriba.storage.blobs import BlobStore
from noriba.storage.compaction import compact
from noriba.storage.model import Conditions
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
    await asyncio.gather(*(store.put(*X, bytes([n]) * 20_000) for n, store in enumerate(pair * 10)))
    data = await pair[0].read_all(*X)
    assert len(set(data)) == 1
    for store in pair:
        store.reading_grace_s = 0
    now = pair[0].clock() + 1
    await asyncio.gather(*(sweep(store, now) for store in pair * 3))
    left = await pair[0].database.read(
        lambda c: c.execute(sa.select(blob_tables.blob_segments.c.content_id)).scalars().all()
    )
    assert left == [(await pair[0].get(*X)).content_id]
    assert await pair[1].read_all(*X) == data


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
