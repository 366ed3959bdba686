"""Blocks: put in any order, committed by a list, reused, replaced, dropped."""

from __future__ import annotations

import asyncio
import base64
import os

import pytest

from noriba.models.errors import BadRequest, Conflict, NotFound, PreconditionFailed
from noriba.storage.blobs import BlobStore
from noriba.storage.blocks import Source, block_lists, put_block, put_block_list
from noriba.storage.model import PIECE_BYTES, Conditions
from tests.storage.conftest import ACCOUNT, CONTAINER, Clock

X = (ACCOUNT, CONTAINER, "x")


def block_id(number: int) -> str:
    return base64.b64encode(f"{number:05}".encode()).decode()


def latest(*numbers: int) -> list[tuple[Source, str]]:
    return [("Latest", block_id(number)) for number in numbers]


async def test_blocks_in_any_order_and_size(store: BlobStore) -> None:
    data = [os.urandom(size) for size in (5, 100_000, PIECE_BYTES + 3, 1)]
    await asyncio.gather(*(put_block(store, *X, block_id(n), data[n]) for n in (3, 1, 0, 2)))
    assert await store.head(*X) is None, "nothing is there before the commit"
    blob = await put_block_list(store, *X, latest(0, 1, 2, 3), metadata={"m": "1"})
    assert (blob.size, blob.metadata) == (sum(map(len, data)), {"m": "1"})
    assert await store.read_all(*X) == b"".join(data)
    lists = await block_lists(store, *X)
    assert lists.committed == [(block_id(n), len(data[n])) for n in range(4)]
    assert lists.uncommitted == []


async def test_committed_blocks_can_be_used_again(store: BlobStore, clock: Clock) -> None:
    a, b, c = (os.urandom(30_000) for _ in range(3))
    for number, data in enumerate((a, b)):
        await put_block(store, *X, block_id(number), data)
    await put_block_list(store, *X, latest(0, 1, 0))
    assert await store.read_all(*X) == a + b + a
    await put_block(store, *X, block_id(2), c)
    await put_block_list(
        store, *X, [("Committed", block_id(1)), ("Uncommitted", block_id(2)), ("Latest", block_id(0))]
    )
    assert await store.read_all(*X) == b + c + a
    clock.now += 10_000
    await store.upkeep.sweep_all()
    assert await store.read_all(*X) == b + c + a, "the sweep of the old content spares what is shared"


async def test_latest_prefers_what_is_not_committed_yet(store: BlobStore) -> None:
    await put_block(store, *X, block_id(0), b"old")
    await put_block_list(store, *X, latest(0))
    await put_block(store, *X, block_id(0), b"new")
    assert await store.read_all(*X) == b"old"
    await put_block_list(store, *X, latest(0))
    assert await store.read_all(*X) == b"new"


async def test_a_block_put_twice_is_the_last_one(store: BlobStore) -> None:
    await put_block(store, *X, block_id(0), b"1" * 20_000)
    await put_block(store, *X, block_id(0), b"2")
    assert (await block_lists(store, *X)).uncommitted == [(block_id(0), 1)]
    await put_block_list(store, *X, latest(0))
    assert await store.read_all(*X) == b"2"


async def test_blocks_left_out_are_dropped(store: BlobStore) -> None:
    await put_block(store, *X, block_id(0), b"0")
    await put_block(store, *X, block_id(1), b"1")
    await put_block_list(store, *X, latest(1))
    with pytest.raises(BadRequest) as wrong:
        await put_block_list(store, *X, latest(0))
    assert wrong.value.code == "InvalidBlockList"
    assert await store.read_all(*X) == b"1"
    await put_block(store, *X, block_id(2), b"2")
    await store.put(*X, b"whole")
    assert (await block_lists(store, *X)).uncommitted == [], "Put Blob drops them too"


async def test_what_is_refused(store: BlobStore) -> None:
    for bad in ("", "not base64!", base64.b64encode(b"x" * 65).decode()):
        with pytest.raises(BadRequest):
            await put_block(store, *X, bad, b"1")
    await put_block(store, *X, block_id(0), b"1")
    with pytest.raises(BadRequest) as wrong:
        await put_block(store, *X, base64.b64encode(b"longer").decode() * 2, b"1")
    assert wrong.value.code == "InvalidBlobOrBlock"
    with pytest.raises(NotFound):
        await put_block(store, ACCOUNT, "nowhere", "x", block_id(0), b"1")
    with pytest.raises(NotFound):
        await block_lists(store, ACCOUNT, CONTAINER, "nothing")
    with pytest.raises(PreconditionFailed):
        await put_block_list(store, *X, latest(0), conditions=Conditions(if_match=("x",)))
    await store.put(ACCOUNT, CONTAINER, "log", b"", kind="AppendBlob")
    with pytest.raises(Conflict) as other:
        await put_block(store, ACCOUNT, CONTAINER, "log", block_id(0), b"1")
    assert other.value.code == "InvalidBlobType"


async def test_an_empty_list_makes_an_empty_blob(store: BlobStore) -> None:
    assert (await put_block_list(store, *X, [])).size == 0
    assert await store.read_all(*X) == b""


async def test_uncommitted_names_are_listed_on_request(store: BlobStore) -> None:
    await store.put(ACCOUNT, CONTAINER, "a", b"")
    await put_block(store, *X, block_id(0), b"1")
    await put_block(store, ACCOUNT, CONTAINER, "a", block_id(0), b"1")
    assert [b.name for b in (await store.list(ACCOUNT, CONTAINER)).blobs] == ["a"]
    page = await store.list(ACCOUNT, CONTAINER, uncommitted=True)
    assert [(b.name, b.committed) for b in page.blobs] == [("a", True), ("x", False)]


async def test_many_blocks(store: BlobStore) -> None:
    await asyncio.gather(*(put_block(store, *X, block_id(n), b"%05d" % n) for n in range(500)))
    await put_block_list(store, *X, latest(*range(500)))
    assert await store.read_all(*X) == b"".join(b"%05d" % n for n in range(500))
