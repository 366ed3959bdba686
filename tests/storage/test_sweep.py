"""The sweep: takes what nobody has any more, and nothing else."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from noriba.database import blob_tables
from noriba.models.errors import NotFound, Unavailable
from noriba.storage import sweep as sweeping
from noriba.storage.blobs import BlobStore
from noriba.storage.blocks import block_lists, put_block
from noriba.storage.model import PIECE_BYTES
from noriba.storage.sweep import sweep
from tests.storage.conftest import ACCOUNT, CONTAINER, Clock, collect

X = (ACCOUNT, CONTAINER, "x")
BIG = b"x" * 20_000


def objects_in(folder: Path) -> list[str]:
    return [file for _, _, files in os.walk(folder / "objects") for file in files]


async def rows(store: BlobStore, table: sa.Table) -> int:
    return await store.database.read(
        lambda connection: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
    )


async def test_replaced_and_deleted_contents_go_after_the_grace_time(
    store: BlobStore, clock: Clock, tmp_path: Path
) -> None:
    await store.put(*X, BIG)
    await store.put(*X, BIG)
    await store.put(ACCOUNT, CONTAINER, "y", BIG)
    await store.delete(ACCOUNT, CONTAINER, "y")
    assert not await sweep(store, clock.now + store.reading_grace_s - 1)
    swept = await sweep(store, clock.now + store.reading_grace_s)
    assert (swept.contents, swept.objects) == (2, 2)
    assert not await sweep(store, clock.now + store.reading_grace_s)
    assert await rows(store, blob_tables.blob_segments) == 1
    assert await store.read_all(*X) == BIG
    if (tmp_path / "objects").exists():
        assert len(objects_in(tmp_path)) == 1


async def test_a_reader_keeps_what_it_reads(store: BlobStore, clock: Clock) -> None:
    data = os.urandom(3 * 1024 * 1024)
    await store.put(*X, data)
    _, chunks = await store.open(*X)
    first = await anext(chunks)
    await store.delete(*X)
    clock.now += 10 * store.reading_grace_s
    await store.upkeep.sweep_all()
    assert first + await collect(chunks) == data
    await store.upkeep.sweep_all()
    assert await rows(store, blob_tables.blob_segments) == 0


async def test_what_a_killed_process_left_is_swept(store: BlobStore, clock: Clock, tmp_path: Path) -> None:
    # What a kill in the middle of an upload leaves: the record, and some of the objects.
    dead = store.new_upload()
    await dead.write(b"x" * 9_000_000)
    await dead.finish()
    assert await rows(store, blob_tables.blob_uploads) == 1
    await store.upkeep.sweep_all()
    assert await rows(store, blob_tables.blob_uploads) == 1, "it may still be alive elsewhere"
    clock.now += sweeping.UPLOAD_GRACE_S
    await store.upkeep.sweep_all()
    assert await rows(store, blob_tables.blob_uploads) == 0
    assert await rows(store, blob_tables.blob_doomed_objects) == 0
    assert objects_in(tmp_path) == []
    with pytest.raises(Unavailable):
        await store.database.write(dead.commit)


async def test_a_living_upload_is_left_alone(store: BlobStore, clock: Clock) -> None:
    async with store.upload() as upload:
        await upload.write(b"x" * (PIECE_BYTES + 1))
        clock.now += 2 * sweeping.UPLOAD_GRACE_S
        await store.upkeep.sweep_all()
        await upload.finish()
        await store.database.write(upload.commit)
    assert await rows(store, blob_tables.blob_segments) == 2


async def test_blocks_never_committed_go_after_a_week(store: BlobStore, clock: Clock) -> None:
    await put_block(store, *X, "AAAA", BIG)
    clock.now += sweeping.BLOCK_GRACE_S - 1
    await store.upkeep.sweep_all()
    assert (await block_lists(store, *X)).uncommitted == [("AAAA", len(BIG))]
    clock.now += 1
    await store.upkeep.sweep_all()
    with pytest.raises(NotFound):
        await block_lists(store, *X)
    clock.now += store.reading_grace_s
    await store.upkeep.sweep_all()
    assert await rows(store, blob_tables.blob_segments) == 0


async def test_sweeping_while_others_write(store: BlobStore, clock: Clock) -> None:
    store.reading_grace_s = 0

    async def write(number: int) -> None:
        for turn in range(5):
            await store.put(ACCOUNT, CONTAINER, f"x{number}", bytes([number, turn]) * 10_000)

    async def sweep_often() -> None:
        for _ in range(10):
            await sweep(store, clock.now)

    await asyncio.gather(*(write(number) for number in range(5)), sweep_often())
    await store.upkeep.sweep_all()
    for number in range(5):
        assert await store.read_all(ACCOUNT, CONTAINER, f"x{number}") == bytes([number, 4]) * 10_000
    assert await rows(store, blob_tables.blob_segments) == 5
    assert await rows(store, blob_tables.blob_uploads) == 0
