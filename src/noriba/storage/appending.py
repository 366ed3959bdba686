"""Append blobs: a content that grows. Small appends stand in the database until compaction merges them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import sqlalchemy as sa

from noriba.database.blob_tables import blob_containers, blobs
from noriba.models.errors import PreconditionFailed
from noriba.storage import index
from noriba.storage.compaction import TRIGGER_BYTES, TRIGGER_ROWS
from noriba.storage.model import (
    NO_CONDITIONS,
    BlobHeaders,
    BlobProperties,
    Conditions,
    Segment,
    check_blob_name,
)
from noriba.storage.uploads import fill

if TYPE_CHECKING:
    from noriba.storage.blobs import BlobStore

_PART_BYTES = 256 * 1024
LOG_TYPE = "text/plain; charset=utf-8"

# Built once: every line of every log comes this way.
_FIND = (
    sa.select(blobs.c.content_id, blobs.c.size)
    .join(blob_containers, blob_containers.c.id == blobs.c.container_id)
    .where(
        blob_containers.c.account == sa.bindparam("account"),
        blob_containers.c.name == sa.bindparam("container"),
        blobs.c.name == sa.bindparam("name"),
    )
    .with_for_update(of=blobs)
)
_GROW = (
    blobs.update()
    .where(blobs.c.content_id == sa.bindparam("of_content"))
    .values(
        # A log is a growing blob whatever it was made as.
        kind="AppendBlob",
        size=blobs.c.size + sa.bindparam("added"),
        etag=sa.bindparam("new_etag"),
        content_md5=None,
        append_count=blobs.c.append_count + 1,
        inline_rows=blobs.c.inline_rows + sa.bindparam("added_rows"),
        inline_bytes=blobs.c.inline_bytes + sa.bindparam("added_inline"),
        modified_at=sa.bindparam("now"),
    )
    .returning(blobs.c.inline_rows, blobs.c.inline_bytes)
)


class Grown(NamedTuple):
    """The size of a blob after an append, its content, and whether compaction should look at it."""

    size: int
    content_id: int
    is_due: bool


def append_in(
    connection: sa.Connection,
    account: str,
    container: str,
    name: str,
    offset: int,
    data: bytes,
    now: float,
) -> Grown:
    """See BlobStore.append_in."""
    row = connection.execute(_FIND, {"account": account, "container": container, "name": name}).one_or_none()
    size = 0 if row is None else int(row.size)
    fresh = data[size - offset :] if offset <= size else b""
    if not fresh and (row is not None or offset > 0):
        return Grown(size, 0, False)
    if row is None:
        content_id = index.new_content_id()
        index.insert_container(connection, account, container, {}, now)
        index.replace_blob(
            connection,
            account,
            container,
            name,
            index.Replacement(
                kind="AppendBlob",
                content_id=content_id,
                size=0,
                headers=BlobHeaders(content_type=LOG_TYPE),
                metadata={},
                tags={},
            ),
            Conditions(),
            now,
        )
    else:
        content_id = int(row.content_id)
    parts = [
        Segment(size + at, len(fresh[at : at + _PART_BYTES]), None, fresh[at : at + _PART_BYTES])
        for at in range(0, len(fresh), _PART_BYTES)
    ]
    if not parts:
        return Grown(0, content_id, False)
    _, is_due = _grow(connection, content_id, parts, now)
    return Grown(size + len(fresh), content_id, is_due)


def _grow(
    connection: sa.Connection, content_id: int, segments: Sequence[Segment], now: float
) -> tuple[str, bool]:
    """Add segments at the end of a blob; returns its new entity tag and whether compaction should look at it."""
    etag = index.new_etag()
    inline = [segment for segment in segments if segment.key is None]
    index.insert_segments(connection, content_id, segments)
    rows, in_rows = connection.execute(
        _GROW,
        {
            "of_content": content_id,
            "added": sum(segment.size for segment in segments),
            "new_etag": etag,
            "added_rows": len(inline),
            "added_inline": sum(segment.size for segment in inline),
            "now": now,
        },
    ).one()
    return etag, rows >= TRIGGER_ROWS or in_rows >= TRIGGER_BYTES


async def append(
    store: BlobStore,
    account: str,
    container: str,
    name: str,
    data: bytes | AsyncIterator[bytes],
    *,
    position: int | None = None,
    max_size: int | None = None,
    conditions: Conditions = NO_CONDITIONS,
) -> tuple[BlobProperties, int]:
    """Append a block to an append blob; returns the blob as it is then and where the block begins.

    Raises NotFound, Conflict (not an append blob), PreconditionFailed (``position`` is not the end, the blob would
    be larger than ``max_size``, or ``conditions``), Unavailable.
    """
    check_blob_name(name)
    now = store.clock()
    blob = await store.get(account, container, name)
    _check_append(blob, 0, position, None, conditions)
    async with store.upload() as upload:
        await fill(upload, data)

        def write(connection: sa.Connection) -> tuple[BlobProperties, int]:
            old = index.get_blob(connection, account, container, name, lock=True)
            _check_append(old, upload.size, position, max_size, conditions)
            if upload.recorded:
                index.end_upload(connection, upload.content_id)
            moved = [Segment(old.size + s.start, s.size, s.key, s.data) for s in upload.segments]
            etag, is_due = _grow(connection, old.content_id, moved, now)
            new = msgspec.structs.replace(
                old,
                size=old.size + upload.size,
                etag=etag,
                content_md5=None,
                append_count=old.append_count + 1,
                modified_at=now,
            )
            if is_due:
                store.compact_later(old.content_id)
            return new, old.size

        return await store.write(write)


def _check_append(
    blob: BlobProperties,
    adding: int,
    position: int | None,
    max_size: int | None,
    conditions: Conditions,
) -> None:
    index.check_kind(blob, "AppendBlob")
    conditions.check_write(blob)
    if position is not None and position != blob.size:
        raise PreconditionFailed(
            f"The blob ends at {blob.size}, not at the position {position} that the request gives.",
            code="AppendPositionConditionNotMet",
        )
    if max_size is not None and blob.size + adding > max_size:
        raise PreconditionFailed(
            f"The blob would become larger than the {max_size} bytes that the request allows.",
            code="MaxBlobSizeConditionNotMet",
        )
