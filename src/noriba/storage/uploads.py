"""Writing a content: a stream of bytes becomes durable objects of bounded size, or a few inline bytes.

The upload is recorded before its first object exists; it ends with the commit that gives the content to a blob, or
is aborted. What a killed process leaves is found by the record and swept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa
import structlog

from noriba.database import Database
from noriba.database.blob_tables import blob_uploads
from noriba.models.errors import NoribaError
from noriba.storage import index
from noriba.storage.model import INLINE_BYTES, PIECE_BYTES, Segment
from noriba.storage.objects import Objects, object_key

log = structlog.get_logger("noriba.storage")

BUFFER_BUDGET_BYTES = 32 * 1024 * 1024
"""Beyond this much in the buffers of all uploads, each flushes its piece early instead of filling it."""
SMALLEST_PIECE_BYTES = 512 * 1024
PIECES_UNDER_WAY = 2
"""More keep the disk busier, but each costs memory."""


class Buffered:
    """How many bytes all uploads of a process hold in memory."""

    def __init__(self) -> None:
        self.bytes = 0


class Upload:
    """One content being written. Use: ``write`` …, then ``finish`` and commit, else ``abort``.

    ``segments`` and ``size`` are complete after ``finish``. While one piece fills, up to ``PIECES_UNDER_WAY`` are on
    their way to the object store.
    """

    def __init__(self, database: Database, objects: Objects, buffered: Buffered, now: float) -> None:
        self.content_id = index.new_content_id()
        self.segments: list[Segment] = []
        self.size = 0
        self.recorded = False
        self._database = database
        self._objects = objects
        self._buffered = buffered
        self._now = now
        self._parts: list[bytes] = []
        self._held = 0
        self._reserved = 0
        self._storing: list[asyncio.Task[None]] = []

    async def write(self, data: bytes) -> None:
        """Add bytes. Raises Unavailable when the object store fails."""
        view = memoryview(data)
        while len(view):
            part = view[: PIECE_BYTES - self._held]
            self._parts.append(data if len(part) == len(data) else bytes(part))
            self._held += len(part)
            self._buffered.bytes += len(part)
            self.size += len(part)
            view = view[len(part) :]
            crowded = self._buffered.bytes > BUFFER_BUDGET_BYTES
            if self._held >= PIECE_BYTES or (crowded and self._held >= SMALLEST_PIECE_BYTES):
                await self._flush()
                if crowded:
                    await self._settle(0)

    async def finish(self) -> None:
        """All bytes are given: make them durable (all but an inline segment, which the commit does)."""
        if self._held and self.size <= INLINE_BYTES:
            self.segments.append(Segment(0, self.size, None, b"".join(self._parts)))
            self._drop_buffer()
            return
        if self._held:
            await self._flush()
        await self._settle(0)
        if self.segments:
            await self._objects.sync(object_key(self.content_id, 0))

    async def write_object(self, data: bytes) -> None:
        """All of the content at once, as one object whatever its size. Raises Unavailable."""
        await self._reserve(1)
        key = object_key(self.content_id, 0)
        await self._objects.put(key, [data])
        await self._objects.sync(key)
        self.segments, self.size = [Segment(0, len(data), key)], len(data)

    def commit(self, connection: sa.Connection) -> None:
        """Inside a write: the content has its segments and is no upload any more."""
        if self.recorded:
            index.end_upload(connection, self.content_id)
        index.insert_segments(connection, self.content_id, self.segments)

    async def abort(self) -> None:
        """Give up: delete what was stored. What can not be deleted now, the sweep deletes later."""
        self._drop_buffer()
        if self._storing:
            await asyncio.wait(self._storing)
            for storing in self._storing:
                if not storing.cancelled():
                    # Told already to whoever waited for the piece, or of no interest any more.
                    storing.exception()
            self._storing = []
        if not self.recorded:
            return
        try:
            await self._objects.delete([object_key(self.content_id, n) for n in range(self._reserved)])
            await self._database.write(
                lambda connection: connection.execute(
                    blob_uploads.delete().where(blob_uploads.c.content_id == self.content_id)
                )
            )
        except NoribaError as error:
            log.warning("upload left for the sweep", content_id=self.content_id, reason=error.message)

    async def _flush(self) -> None:
        await self._settle(PIECES_UNDER_WAY - 1)
        number = len(self.segments)
        await self._reserve(number + 1)
        parts, size = self._parts, self._held
        self._parts, self._held = [], 0
        key = object_key(self.content_id, number)
        self.segments.append(Segment(self.size - size, size, key))
        self._storing.append(asyncio.ensure_future(self._store(key, parts, size)))

    async def _store(self, key: str, parts: list[bytes], size: int) -> None:
        try:
            await self._objects.put(key, parts)
        finally:
            self._buffered.bytes -= size

    async def _settle(self, under_way: int) -> None:
        """Wait until no more than so many pieces are under way. Raises what storing one of them raised."""
        while len(self._storing) > under_way:
            # Shielded: when the request is cancelled, ``abort`` still waits for the piece.
            await asyncio.shield(self._storing[0])
            del self._storing[0]

    async def _reserve(self, pieces: int) -> None:
        if pieces <= self._reserved:
            return
        # Most blobs have one object; many-piece uploads seldom come back here.
        wanted = 1 if pieces == 1 else pieces * 8
        content_id, now = self.content_id, self._now

        def record(connection: sa.Connection) -> Any:
            if self._reserved == 0:
                return connection.execute(
                    blob_uploads.insert().values(content_id=content_id, pieces=wanted, touched_at=now)
                )
            return connection.execute(
                blob_uploads.update()
                .where(blob_uploads.c.content_id == content_id)
                .values(pieces=wanted, touched_at=now)
            )

        await self._database.write(record)
        self._reserved, self.recorded = wanted, True

    def _drop_buffer(self) -> None:
        self._buffered.bytes -= self._held
        self._parts, self._held = [], 0


async def fill(upload: Upload, data: bytes | AsyncIterator[bytes]) -> None:
    """Write all of ``data`` and finish the upload."""
    if isinstance(data, bytes | bytearray | memoryview):
        await upload.write(bytes(data))
    else:
        async for part in data:
            await upload.write(part)
    await upload.finish()
