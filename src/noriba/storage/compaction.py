"""Compaction of append blobs: many small appends become few objects, whose sizes grow in steps.

Appends come in as rows of the database. Every so often runs of neighbours are merged: tiny rows into one row, rows
into an object, small objects into larger ones. Each byte is rewritten a handful of times at most, and a log of a
million appends or of many gigabytes is read with few look-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from noriba.database.blob_tables import blob_segments, blobs
from noriba.models.errors import Conflict
from noriba.storage import index
from noriba.storage.model import Segment

if TYPE_CHECKING:
    from noriba.storage.blobs import BlobStore

TRIGGER_ROWS = 64
TRIGGER_BYTES = 256 * 1024
"""An append blob is looked at when so many inline segments, or bytes in them, wait."""
IDLE_S = 3600.0
"""A blob that has not grown for so long may leave the database."""
_ANY_SIZE = 1 << 62
_TINY_BYTES = 16 * 1024
_TIERS_BYTES = (256 * 1024, 2 * 1024 * 1024, 8 * 1024 * 1024)
"""Neighbours that are each below a tier's size are merged once they reach it together."""
_LOOK_BACK = 512


class Merge(msgspec.Struct, frozen=True):
    """Merge the segments ``first`` to ``last`` (not included) of a list, into an object or a row."""

    first: int
    last: int
    into_object: bool


def plan(segments: Sequence[Segment], *, idle: bool = False) -> Merge | None:
    """What to merge next in a content's last segments; None when nothing is worth it.

    ``idle`` says that the blob has not grown for long, so that what is inline may leave the database.
    """
    for tier in reversed(_TIERS_BYTES):
        for first, last in _runs(segments, tier):
            total = sum(segment.size for segment in segments[first:last])
            if last - first > 1 and total >= tier:
                return Merge(first, _bounded(segments, first, last, tier), into_object=True)
    for first, last in _runs(segments, _ANY_SIZE, inline_only=True):
        total = sum(segment.size for segment in segments[first:last])
        if total >= TRIGGER_BYTES or (idle and total > _TINY_BYTES):
            return Merge(first, _bounded(segments, first, last, _TIERS_BYTES[-1]), into_object=True)
    for first, last in _runs(segments, _TINY_BYTES, inline_only=True):
        if last - first >= (2 if idle else TRIGGER_ROWS):
            return Merge(first, last, into_object=False)
    return None


def _runs(segments: Sequence[Segment], below: int, *, inline_only: bool = False) -> list[tuple[int, int]]:
    """The maximal runs of neighbours that are each smaller than ``below``."""
    runs: list[tuple[int, int]] = []
    first: int | None = None
    for number, segment in enumerate(segments):
        if segment.size < below and not (inline_only and segment.key is not None):
            first = number if first is None else first
        elif first is not None:
            runs.append((first, number))
            first = None
    if first is not None:
        runs.append((first, len(segments)))
    return runs


def _bounded(segments: Sequence[Segment], first: int, last: int, tier: int) -> int:
    """The end of the run, but no more than makes an object of about ``tier`` bytes (which bounds the memory)."""
    total = 0
    for number in range(first, last):
        total += segments[number].size
        if total >= tier:
            return number + 1
    return last


async def compact(store: BlobStore, content_id: int, *, idle: bool = False) -> int:
    """Merge what is worth merging in an append blob; returns how many merges were made. Raises Unavailable."""
    merges = 0
    while True:
        segments = await store.database.read(lambda connection: _last_segments(connection, content_id))
        merge = plan(segments, idle=idle)
        if merge is None or not await _carry_out(
            store, content_id, segments[merge.first : merge.last], merge
        ):
            return merges
        merges += 1


def _last_segments(connection: sa.Connection, content_id: int) -> list[Segment]:
    """Where the last segments of a content are (without their bytes)."""
    rows = connection.execute(
        sa.select(blob_segments.c.start, blob_segments.c.size, blob_segments.c.key)
        .where(blob_segments.c.content_id == content_id)
        .order_by(blob_segments.c.start.desc())
        .limit(_LOOK_BACK)
    )
    return [Segment(*row) for row in rows][::-1]


async def _carry_out(store: BlobStore, content_id: int, old: Sequence[Segment], merge: Merge) -> bool:
    start, end = old[0].start, old[-1].start + old[-1].size
    now = store.clock()
    async with store.upload() as upload:
        parts = [part async for part in store.read_content(content_id, start, end)]
        whole = b"".join(parts)
        if merge.into_object:
            await upload.write_object(whole)
            merged = [Segment(start + s.start, s.size, s.key) for s in upload.segments]
        else:
            merged = [Segment(start, len(whole), None, whole)]

        def write(connection: sa.Connection) -> None:
            # Other replicas of the server compact too.
            connection.execute(
                sa.select(blobs.c.id).where(blobs.c.content_id == content_id).with_for_update()
            )
            of_run = (
                blob_segments.c.content_id == content_id,
                blob_segments.c.start >= start,
                blob_segments.c.start < end,
            )
            found = connection.execute(
                sa.select(blob_segments.c.start, blob_segments.c.size, blob_segments.c.key)
                .where(*of_run)
                .order_by(blob_segments.c.start)
            )
            if [Segment(*row) for row in found] != list(old):
                raise Conflict("The segments changed or went while they were merged.")
            connection.execute(blob_segments.delete().where(*of_run))
            if upload.recorded:
                index.end_upload(connection, upload.content_id)
            index.insert_segments(connection, content_id, merged)
            gone = [s.key for s in old if s.key is not None]
            index.doom(connection, gone, now + store.reading_grace_s)
            inline = [s for s in old if s.key is None]
            added = 0 if merge.into_object else 1
            connection.execute(
                blobs.update()
                .where(blobs.c.content_id == content_id)
                .values(
                    inline_rows=blobs.c.inline_rows - len(inline) + added,
                    inline_bytes=blobs.c.inline_bytes
                    - (sum(s.size for s in inline) if merge.into_object else 0),
                )
            )

        try:
            await store.database.write(write)
        except Conflict:
            # The blob was deleted or another process compacts it: nothing to do here.
            await upload.abort()
            return False
    return True


async def compact_idle(store: BlobStore, now: float) -> int:
    """Move what has long been inline in append blobs into objects; returns how many blobs were looked at."""
    found = await store.database.read(
        lambda connection: (
            connection.execute(
                sa.select(blobs.c.content_id)
                .where(blobs.c.inline_bytes > _TINY_BYTES, blobs.c.modified_at <= now - IDLE_S)
                .limit(50)
            )
            .scalars()
            .all()
        )
    )
    for content_id in found:
        await compact(store, content_id, idle=True)
    return len(found)
