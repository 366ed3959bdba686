"""Append blobs and their compaction: every byte once and in order, however it came in, at little cost."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from noriba.database.blob_tables import blob_segments, blobs
from noriba.models.errors import Conflict, NotFound, PreconditionFailed
from noriba.storage import compaction, editing
from noriba.storage.appending import append
from noriba.storage.blobs import BlobStore
from noriba.storage.compaction import Merge, compact, compact_idle, plan
from noriba.storage.model import BlobProperties, Conditions, Segment
from tests.storage.conftest import ACCOUNT, CONTAINER, Clock, collect

LOG = (ACCOUNT, CONTAINER, "user_logs/std_log.txt")


async def append_in(store: BlobStore, offset: int, data: bytes) -> int:
    return await store.database.write(
        lambda connection: store.append_in(connection, *LOG, offset, data, store.clock())
    )


async def segments(store: BlobStore) -> list[tuple[int, bool]]:
    """(size, whether it is inline) of the log's segments."""
    content = (await store.get(*LOG)).content_id
    rows = await store.database.read(
        lambda connection: connection.execute(
            sa.select(blob_segments.c.size, blob_segments.c.key)
            .where(blob_segments.c.content_id == content)
            .order_by(blob_segments.c.start)
        ).all()
    )
    return [(size, key is None) for size, key in rows]


async def test_appends_are_idempotent_by_offset(store: BlobStore) -> None:
    assert await append_in(store, 0, b"") == 0
    made = await store.head(*LOG)
    assert made is not None, "an empty log is there, and empty"
    assert made.size == 0
    assert await append_in(store, 0, b"one\n") == 4
    assert await append_in(store, 0, b"one\n") == 4, "again"
    assert await append_in(store, 2, b"e\ntwo\n") == 8, "overlapping"
    assert await append_in(store, 9, b"gap") == 8, "beyond the end: not taken"
    assert await append_in(store, 8, b"three\n") == 14
    assert await store.read_all(*LOG) == b"one\ntwo\nthree\n"
    assert (await store.get(*LOG)).kind == "AppendBlob"


async def test_a_log_grows_in_a_container_that_does_not_exist_yet(store: BlobStore) -> None:
    await store.database.write(lambda c: store.append_in(c, ACCOUNT, "new", "log", 0, b"x" * 300_000, 1.0))
    assert await store.read_all(ACCOUNT, "new", "log") == b"x" * 300_000


async def test_the_tail_can_be_read_while_it_grows(store: BlobStore) -> None:
    await append_in(store, 0, b"a" * 100)
    blob, chunks = await store.open(*LOG, 50)
    await append_in(store, 100, b"b" * 100)
    assert await collect(chunks) == b"a" * 50, "as it was when it was opened"
    _, chunks = await store.open(*LOG, 99)
    assert await collect(chunks) == b"a" + b"b" * 100
    assert (await store.get(*LOG)).etag != blob.etag


async def test_append_blocks(store: BlobStore) -> None:
    with pytest.raises(NotFound):
        await append(store, *LOG, b"x")
    await store.put(*LOG, b"", kind="AppendBlob")
    blob, start = await append(store, *LOG, b"abc")
    assert (blob.size, start, blob.append_count) == (3, 0, 1)
    big = os.urandom(100_000)
    blob, start = await append(store, *LOG, big, position=3, max_size=200_000)
    assert (blob.size, start, blob.append_count) == (100_003, 3, 2)
    for refused in (
        append(store, *LOG, b"x", position=3),
        append(store, *LOG, b"x", max_size=100_003),
        append(store, *LOG, b"x", conditions=Conditions(if_match=("y",))),
    ):
        with pytest.raises(PreconditionFailed):
            await refused
    assert await store.get(*LOG) == blob
    assert await store.read_all(*LOG) == b"abc" + big
    await store.put(ACCOUNT, CONTAINER, "block", b"")
    with pytest.raises(Conflict):
        await append(store, ACCOUNT, CONTAINER, "block", b"x")


async def test_concurrent_appends_lose_nothing(store: BlobStore) -> None:
    await store.put(*LOG, b"", kind="AppendBlob")
    lines = [f"{n:05}".encode() * (1 + 5000 * (n % 2)) + b"\n" for n in range(30)]
    await asyncio.gather(*(append(store, *LOG, line) for line in lines))
    assert sorted((await store.read_all(*LOG)).splitlines(keepends=True)) == sorted(lines)


async def test_compaction_makes_few_segments_of_many_appends(store: BlobStore, clock: Clock) -> None:
    rng = random.Random(1)
    expected = bytearray()

    async def grow(count: int) -> None:
        def write(connection: sa.Connection) -> None:
            for _ in range(count):
                data = rng.randbytes(rng.choice((10, 100, 5_000)))
                store.append_in(connection, *LOG, len(expected), data, clock.now)
                expected.extend(data)

        # The function is run once: nobody else writes.
        await store.database.write(write)

    for _ in range(12):
        await grow(150)
        before = await store.get(*LOG)
        await compact(store, before.content_id)
        found = await segments(store)
        assert len(found) < 2 * compaction.TRIGGER_ROWS
        assert sum(size for size, inline in found if inline) < compaction.TRIGGER_BYTES
        # Compaction changes nothing that a reader can see.
        assert await store.get(*LOG) == before
    assert await store.read_all(*LOG) == bytes(expected)
    assert max(size for size, _ in found) >= 2 * 1024 * 1024
    counted = await store.database.read(
        lambda c: c.execute(sa.select(blobs.c.inline_rows, blobs.c.inline_bytes)).one()
    )
    assert tuple(counted) == (
        sum(inline for _, inline in found),
        sum(size for size, inline in found if inline),
    )


async def test_a_reader_survives_compaction_and_the_sweep(store: BlobStore, clock: Clock) -> None:
    expected = b""
    for number in range(10):
        data = bytes([number]) * 300_000
        await append_in(store, len(expected), data)
        await compact(store, (await store.get(*LOG)).content_id)
        expected += data
    _, chunks = await store.open(*LOG)
    first = await anext(chunks)
    for number in range(10, 40):
        data = bytes([number]) * 300_000
        await append_in(store, 300_000 * number, data)
        await compact(store, (await store.get(*LOG)).content_id)
    clock.now += 10_000
    await store.upkeep.sweep_all()
    assert first + await collect(chunks) == expected


async def test_the_upkeep_compacts_by_itself(store: BlobStore) -> None:
    await store.start()
    size = 0
    for _ in range(compaction.TRIGGER_ROWS + 1):
        size = await append_in(store, size, b"line\n")
    async with asyncio.timeout(10):
        while len(await segments(store)) > compaction.TRIGGER_ROWS:  # noqa: ASYNC110 (the database has no event)
            await asyncio.sleep(0.01)
    assert await store.read_all(*LOG) == b"line\n" * (compaction.TRIGGER_ROWS + 1)


async def test_an_idle_log_leaves_the_database(store: BlobStore, clock: Clock) -> None:
    for number in range(3):
        await append_in(store, 10_000 * number, bytes([number]) * 10_000)
    assert await compact_idle(store, clock.now) == 0
    clock.now += compaction.IDLE_S
    assert await compact_idle(store, clock.now) == 1
    assert await segments(store) == [(30_000, False)]
    assert await store.read_all(*LOG) == b"".join(bytes([number]) * 10_000 for number in range(3))
    assert await compact_idle(store, clock.now) == 0


async def test_compaction_gives_way_to_deletion(store: BlobStore, clock: Clock) -> None:
    for number in range(100):
        await append_in(store, 5_000 * number, b"x" * 5_000)
    blob = await store.get(*LOG)
    await asyncio.gather(compact(store, blob.content_id), store.delete(*LOG), return_exceptions=True)
    assert await store.head(*LOG) is None
    clock.now += 10_000
    await store.upkeep.sweep_all()
    left = await store.database.read(lambda c: c.execute(sa.select(blob_segments.c.start)).all())
    assert left == []


async def test_a_copy_of_a_log_outlives_its_compaction(store: BlobStore, clock: Clock) -> None:
    for number in range(8):
        await append_in(store, 300_000 * number, bytes([number]) * 300_000)
        await compact(store, (await store.get(*LOG)).content_id)
    copied = await editing.copy(store, LOG, (ACCOUNT, CONTAINER, "copy"))
    expected = await store.read_all(*LOG)
    for number in range(8, 40):
        await append_in(store, 300_000 * number, bytes([number]) * 300_000)
        await compact(store, (await store.get(*LOG)).content_id)
    clock.now += 10_000
    await store.upkeep.sweep_all()
    assert isinstance(copied, BlobProperties)
    assert await store.read_all(ACCOUNT, CONTAINER, "copy") == expected


sizes = st.sampled_from([1, 100, 5_000, 100_000, 300_000, 3_000_000, 20_000_000])


@given(st.lists(st.tuples(sizes, st.booleans()), max_size=120), st.booleans())
def test_plans_merge_neighbours_and_come_to_an_end(described: list[tuple[int, bool]], idle: bool) -> None:
    listed: list[Segment] = []
    start = 0
    for size, inline in described:
        listed.append(Segment(start, size, None if inline and size <= 300_000 else "key"))
        start += size
    merges = 0
    while (merge := plan(listed, idle=idle)) is not None:
        assert isinstance(merge, Merge)
        run = listed[merge.first : merge.last]
        size = sum(segment.size for segment in run)
        assert run
        assert size <= 2 * 8 * 1024 * 1024, "bounded memory"
        listed[merge.first : merge.last] = [Segment(run[0].start, size, "key" if merge.into_object else None)]
        merges += 1
        assert merges <= len(described) + 1
    tiny = [segment for segment in listed if segment.key is None]
    assert sum(segment.size for segment in tiny) < compaction.TRIGGER_BYTES * (1 + len(listed) - len(tiny))
