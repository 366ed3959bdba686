"""Reading a content: segment by segment, the next chunk fetched while the one before is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

from noriba.storage import index
from noriba.storage.model import Segment, no_blob
from noriba.storage.objects import ObjectMissing

if TYPE_CHECKING:
    from noriba.storage.blobs import BlobStore

_SEGMENTS_AT_ONCE = 32


async def read_content(store: BlobStore, content_id: int, position: int, end: int) -> AsyncIterator[bytes]:
    """Bytes ``position`` to ``end`` of a content, in chunks of at most ``read_bytes`` of the object store.

    Raises NotFound when the content was swept in the meantime, Unavailable.
    """
    # The sweep leaves alone what is being read.
    store.reading[content_id] += 1
    try:
        chunks = _chunks(store, content_id, position, end)
        async for chunk in chunks if end - position <= store.objects.read_bytes else _one_ahead(chunks):
            yield chunk
    finally:
        store.reading[content_id] -= 1
        if not store.reading[content_id]:
            del store.reading[content_id]


async def _one_ahead(chunks: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    coming = asyncio.ensure_future(anext(chunks, None))
    try:
        while (chunk := await coming) is not None:
            coming = asyncio.ensure_future(anext(chunks, None))
            yield chunk
    finally:
        coming.cancel()
        with suppress(asyncio.CancelledError, Exception):
            # What went wrong with a chunk that nobody waits for is nobody's concern.
            await coming
        await chunks.aclose()


async def _chunks(store: BlobStore, content_id: int, position: int, end: int) -> AsyncGenerator[bytes, None]:
    while position < end:
        for segment in await _segments(store, content_id, position):
            stop = min(end, segment.start + segment.size)
            while position < stop:
                chunk_end = min(stop, position + store.objects.read_bytes)
                try:
                    chunk = await _chunk(store, segment, position, chunk_end)
                except ObjectMissing:
                    # Compaction moved these bytes into another object since we looked.
                    moved = (await _segments(store, content_id, position))[0]
                    if moved.key == segment.key:
                        raise
                    break
                yield chunk
                position = chunk_end
            if position < stop or position >= end:
                break


async def _segments(store: BlobStore, content_id: int, position: int) -> list[Segment]:
    found = await store.database.read(
        lambda connection: index.segments_from(connection, content_id, position, _SEGMENTS_AT_ONCE)
    )
    if not found or not found[0].start <= position < found[0].start + found[0].size:
        raise no_blob("(deleted while it was read)")
    return found


async def _chunk(store: BlobStore, segment: Segment, start: int, end: int) -> bytes:
    start, end = start - segment.start, end - segment.start
    if segment.data is not None:
        return segment.data[start:end]
    if segment.key is None:
        raise ValueError("A segment has neither a key nor data")
    return bytes(await store.objects.get(segment.key, start, end))
