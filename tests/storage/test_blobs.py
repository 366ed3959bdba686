"""The blob store: what is put is what is read, whatever its size and name; replaced at once, whole or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from noriba.models.errors import BadRequest, Conflict, NotFound, PreconditionFailed
from noriba.storage import editing
from noriba.storage.blobs import BlobStore
from noriba.storage.model import (
    INLINE_BYTES,
    PIECE_BYTES,
    BlobHeaders,
    Conditions,
    InvalidRange,
    NotModified,
)
from tests.storage.conftest import ACCOUNT, CONTAINER, Clock, collect, stream

SIZES = [
    0,
    1,
    INLINE_BYTES,
    INLINE_BYTES + 1,
    PIECE_BYTES - 1,
    PIECE_BYTES,
    PIECE_BYTES + 1,
    2 * PIECE_BYTES + 7,
]
NAMES = [
    "plain.txt",
    "../../etc/passwd",
    "/absolute",
    "./.",
    "a//b",
    "ends/",
    "with space and +%41?&#",
    "quote\"<&>'",
    "line\nfeed\ttab\rreturn\x01",
    "ünï©ödé/日本語/🙂",
    "a" * 1024,
    "back\\slash",
    "C:\\windows",
    "-rf",
    "\ufffe\uffff",
]


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_put_is_what_is_read(store: BlobStore, size: int) -> None:
    data = os.urandom(size)
    put = await store.put(ACCOUNT, CONTAINER, "a/b", data, content_type="text/x", metadata={"k": "v"})
    blob, chunks = await store.open(ACCOUNT, CONTAINER, "a/b")
    assert await collect(chunks) == data
    assert (blob.size, blob.content_type, blob.metadata, blob.etag) == (size, "text/x", {"k": "v"}, put.etag)
    assert await store.head(ACCOUNT, CONTAINER, "a/b") == blob == put


async def test_ranges_cross_pieces(store: BlobStore) -> None:
    data = os.urandom(2 * PIECE_BYTES + 100)
    await store.put(
        ACCOUNT, CONTAINER, "x", stream(data[:5], data[5 : PIECE_BYTES + 9], data[PIECE_BYTES + 9 :])
    )
    for start, end in [
        (0, 1),
        (PIECE_BYTES - 3, PIECE_BYTES + 3),
        (PIECE_BYTES, PIECE_BYTES + 1),
        (5, 2 * PIECE_BYTES + 50),
        (len(data) - 1, len(data)),
        (len(data) - 10, len(data) + 10),
        (7, 7),
    ]:
        _, chunks = await store.open(ACCOUNT, CONTAINER, "x", start, end)
        assert await collect(chunks) == data[start:end], (start, end)
    with pytest.raises(InvalidRange):
        await store.open(ACCOUNT, CONTAINER, "x", len(data))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_names_are_data(store: BlobStore, name: str) -> None:
    await store.put(ACCOUNT, CONTAINER, name, b"1" * (INLINE_BYTES + 1))
    assert await store.read_all(ACCOUNT, CONTAINER, name) == b"1" * (INLINE_BYTES + 1)
    assert [blob.name for blob in (await store.list(ACCOUNT, CONTAINER, name)).blobs] == [name]
    await store.delete(ACCOUNT, CONTAINER, name)
    assert await store.head(ACCOUNT, CONTAINER, name) is None


@pytest.mark.parametrize("name", ["", "nul\0", "half\ud800", "x" * 1025, "日" * 1000])
async def test_names_that_can_not_be_are_refused(store: BlobStore, name: str) -> None:
    with pytest.raises(BadRequest):
        await store.put(ACCOUNT, CONTAINER, name, b"")


async def test_nothing_of_a_name_reaches_the_file_system(
    store: BlobStore, tmp_path: os.PathLike[str]
) -> None:
    for name in NAMES:
        await store.put(ACCOUNT, CONTAINER, name, b"1" * (INLINE_BYTES + 1))
    found = {
        file for folder, _, files in os.walk(tmp_path) for file in files if not file.startswith("noriba.db")
    }
    assert all(set(file) <= set("0123456789abcdef-") for file in found)


async def test_an_overwrite_is_seen_whole(store: BlobStore) -> None:
    await store.put(ACCOUNT, CONTAINER, "x", b"old" * 10_000, metadata={"a": "1"})
    old, chunks = await store.open(ACCOUNT, CONTAINER, "x")
    new = await store.put(ACCOUNT, CONTAINER, "x", b"new")
    assert (new.etag != old.etag, new.metadata, new.created_at) == (True, {}, old.created_at)
    assert await collect(chunks) == b"old" * 10_000, "a reader reads what it opened"
    assert await store.read_all(ACCOUNT, CONTAINER, "x") == b"new"


async def test_a_failed_upload_leaves_nothing(store: BlobStore, tmp_path: os.PathLike[str]) -> None:
    async def cut_off() -> AsyncIterator[bytes]:
        yield b"x" * (PIECE_BYTES + 1)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await store.put(ACCOUNT, CONTAINER, "x", cut_off())
    assert await store.head(ACCOUNT, CONTAINER, "x") is None
    assert not [file for folder, _, files in os.walk(f"{tmp_path}/objects") for file in files]


async def test_a_cancelled_upload_leaves_nothing(store: BlobStore, tmp_path: os.PathLike[str]) -> None:
    sent = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x" * (2 * PIECE_BYTES + 1)
        sent.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.put(ACCOUNT, CONTAINER, "x", stuck()))
    await sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.stop()
    assert not [file for folder, _, files in os.walk(f"{tmp_path}/objects") for file in files]
    assert await store.head(ACCOUNT, CONTAINER, "x") is None


async def test_concurrent_writers_leave_one_whole_blob(store: BlobStore) -> None:
    bodies = [bytes([number]) * (INLINE_BYTES * (1 + number % 3)) for number in range(12)]
    await asyncio.gather(*(store.put(ACCOUNT, CONTAINER, "x", body) for body in bodies))
    assert await store.read_all(ACCOUNT, CONTAINER, "x") in bodies


async def test_only_one_of_many_creates(store: BlobStore) -> None:
    once = Conditions(if_none_match=("*",))
    results = await asyncio.gather(
        *(store.put(ACCOUNT, CONTAINER, "x", bytes([n]), conditions=once) for n in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Conflict) for result in results) == 7


async def test_conditions_of_writes(store: BlobStore, clock: Clock) -> None:
    missing = Conditions(if_match=("x",))
    with pytest.raises(PreconditionFailed):
        await store.put(ACCOUNT, CONTAINER, "x", b"", conditions=missing)
    first = await store.put(ACCOUNT, CONTAINER, "x", b"1")
    clock.now += 10
    ok = [
        Conditions(if_match=(first.etag,)),
        Conditions(if_match=("*",)),
        Conditions(if_none_match=("other",)),
        Conditions(if_unmodified_since=first.modified_at),
        Conditions(if_modified_since=first.modified_at - 1),
    ]
    bad = [
        Conditions(if_match=("other",)),
        Conditions(if_none_match=(first.etag,)),
        Conditions(if_unmodified_since=first.modified_at - 1),
        Conditions(if_modified_since=first.modified_at),
    ]
    for conditions in bad:
        with pytest.raises(PreconditionFailed):
            await store.put(ACCOUNT, CONTAINER, "x", b"2", conditions=conditions)
        with pytest.raises(PreconditionFailed):
            await editing.set_metadata(store, ACCOUNT, CONTAINER, "x", {}, conditions=conditions)
        with pytest.raises(PreconditionFailed):
            await store.delete(ACCOUNT, CONTAINER, "x", conditions=conditions)
    for conditions in ok:
        conditions.check_write(first)
    assert await store.read_all(ACCOUNT, CONTAINER, "x") == b"1"


async def test_conditions_of_reads(store: BlobStore) -> None:
    blob = await store.put(ACCOUNT, CONTAINER, "x", b"1")
    with pytest.raises(NotModified):
        Conditions(if_none_match=(blob.etag,)).check_read(blob)
    with pytest.raises(NotModified):
        Conditions(if_modified_since=blob.modified_at).check_read(blob)
    with pytest.raises(PreconditionFailed):
        Conditions(if_match=("y",)).check_read(blob)
    with pytest.raises(PreconditionFailed):
        Conditions(if_unmodified_since=blob.modified_at - 1).check_read(blob)
    # RFC 9110: the entity tag wins over the date.
    Conditions(if_match=(blob.etag,), if_unmodified_since=blob.modified_at - 1).check_read(blob)
    Conditions(if_none_match=("y",), if_modified_since=blob.modified_at).check_read(blob)


async def test_edits_change_the_entity_tag_but_not_the_bytes(store: BlobStore, clock: Clock) -> None:
    first = await store.put(ACCOUNT, CONTAINER, "x", b"1" * 20_000, content_type="a/b")
    clock.now += 5
    second = await editing.set_metadata(store, ACCOUNT, CONTAINER, "x", {"upload_status": "completed"})
    third = await editing.set_headers(store, ACCOUNT, CONTAINER, "x", BlobHeaders(cache_control="no-store"))
    fourth = await editing.set_tags(store, ACCOUNT, CONTAINER, "x", {"t": "1"})
    assert len({first.etag, second.etag, third.etag}) == 3
    assert fourth.etag == third.etag, "tags are not part of the blob's version"
    blob = await store.get(ACCOUNT, CONTAINER, "x")
    assert blob == fourth
    assert (blob.metadata, blob.content_type, blob.cache_control, blob.tags, blob.modified_at) == (
        {"upload_status": "completed"},
        None,
        "no-store",
        {"t": "1"},
        clock.now,
    )
    assert await store.read_all(ACCOUNT, CONTAINER, "x") == b"1" * 20_000


async def test_copies_are_blobs_of_their_own(store: BlobStore, clock: Clock) -> None:
    data = os.urandom(PIECE_BYTES + 5)
    await store.put(ACCOUNT, CONTAINER, "x", data, content_type="a/b", metadata={"m": "1"})
    copied = await editing.copy(store, (ACCOUNT, CONTAINER, "x"), (ACCOUNT, CONTAINER, "y"))
    assert (copied.size, copied.content_type, copied.metadata) == (len(data), "a/b", {"m": "1"})
    await store.delete(ACCOUNT, CONTAINER, "x")
    clock.now += 10_000
    await store.upkeep.sweep_all()
    assert await store.read_all(ACCOUNT, CONTAINER, "y") == data, "the shared objects outlive the source"
    await editing.copy(store, (ACCOUNT, CONTAINER, "y"), (ACCOUNT, CONTAINER, "y"), metadata={"m": "2"})
    assert await store.read_all(ACCOUNT, CONTAINER, "y") == data, "onto itself"
    with pytest.raises(NotFound):
        await editing.copy(store, (ACCOUNT, CONTAINER, "x"), (ACCOUNT, CONTAINER, "z"))


async def test_containers(store: BlobStore, clock: Clock) -> None:
    await store.create_container(ACCOUNT, "other", {"k": "v"})
    await store.create_container("another", CONTAINER)
    with pytest.raises(Conflict):
        await store.create_container(ACCOUNT, "other")
    found, marker = await store.list_containers(ACCOUNT, limit=1)
    assert ([c.name for c in found], marker) == (["con"], "other")
    found, marker = await store.list_containers(ACCOUNT, "ot")
    assert ([c.metadata for c in found], marker) == ([{"k": "v"}], None)
    for name in ("UPPER", "a", "a--b", "-a-", "a" * 64, "ümlaut", "a_b", "../x"):
        with pytest.raises(BadRequest):
            await store.ensure_container(ACCOUNT, name)
    with pytest.raises(NotFound) as missing:
        await store.put(ACCOUNT, "nowhere", "x", b"")
    assert missing.value.code == "ContainerNotFound"
    with pytest.raises(NotFound) as missing:
        await store.delete(ACCOUNT, CONTAINER, "nothing")
    assert missing.value.code == "BlobNotFound"


async def test_a_deleted_container_is_gone_at_once_and_emptied_later(
    store: BlobStore, clock: Clock, tmp_path: os.PathLike[str]
) -> None:
    for number in range(5):
        await store.put(ACCOUNT, CONTAINER, f"x{number}", b"1" * 20_000)
    await store.delete_container(ACCOUNT, CONTAINER)
    with pytest.raises(NotFound):
        await store.list(ACCOUNT, CONTAINER)
    await store.ensure_container(ACCOUNT, CONTAINER)
    assert (await store.list(ACCOUNT, CONTAINER)).blobs == []
    await store.upkeep.sweep_all()
    clock.now += 10_000
    await store.upkeep.sweep_all()
    assert not [file for folder, _, files in os.walk(f"{tmp_path}/objects") for file in files]


async def test_delete_prefix(store: BlobStore) -> None:
    for name in ("a/1", "a/2", "a0", "ab/1", "b"):
        await store.put(ACCOUNT, CONTAINER, name, b"")
    assert await store.delete_prefix(ACCOUNT, CONTAINER, "a/") == 2
    assert [blob.name for blob in (await store.list(ACCOUNT, CONTAINER)).blobs] == ["a0", "ab/1", "b"]
