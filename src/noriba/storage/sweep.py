"""The sweep: what no blob has any more is deleted, a bounded amount at a time.

1 dead uploads      recorded long ago and not ended: their objects are doomed
2 old blocks        put a week ago and never committed
3 deleted containers  their blobs are deleted
4 garbage           contents that were replaced or deleted: segments go, objects that nothing shares are doomed
5 doomed objects    are deleted from the object store
Each step is safe to repeat and may be cut off anywhere; other replicas of the server that sweep at the same time are
passed by (``skip_locked``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from noriba.database.blob_tables import (
    blob_block_lists,
    blob_blocks,
    blob_containers,
    blob_doomed_objects,
    blob_garbage,
    blob_segments,
    blob_uploads,
    blobs,
)
from noriba.storage import index
from noriba.storage.objects import object_key

if TYPE_CHECKING:
    from noriba.storage.blobs import BlobStore

UPLOAD_GRACE_S = 24 * 3600.0
BLOCK_GRACE_S = 7 * 24 * 3600.0
_BATCH = 200


class Swept(msgspec.Struct):
    """How much a sweep did."""

    uploads: int = 0
    blocks: int = 0
    blobs: int = 0
    contents: int = 0
    objects: int = 0

    def __bool__(self) -> bool:
        return bool(self.uploads or self.blocks or self.blobs or self.contents or self.objects)


async def sweep(store: BlobStore, now: float) -> Swept:
    """One round; call again while it returns something. Raises Unavailable."""
    busy = frozenset(store.uploading) | frozenset(store.reading)

    def mark(connection: sa.Connection) -> Swept:
        return Swept(
            uploads=_dead_uploads(connection, now, busy),
            blocks=_old_blocks(connection, now),
            blobs=_deleted_containers(connection, now),
            contents=_garbage(connection, now, now - store.reading_grace_s, busy),
        )

    swept = await store.database.write(mark)
    keys = await store.database.read(
        lambda connection: (
            connection.execute(
                sa.select(blob_doomed_objects.c.key)
                .where(blob_doomed_objects.c.delete_at <= now)
                .order_by(blob_doomed_objects.c.delete_at)
                .limit(_BATCH)
            )
            .scalars()
            .all()
        )
    )
    if keys:
        await store.objects.delete(keys)
        await store.database.write(
            lambda connection: connection.execute(
                blob_doomed_objects.delete().where(blob_doomed_objects.c.key.in_(keys))
            )
        )
        swept.objects = len(keys)
    return swept


def _dead_uploads(connection: sa.Connection, now: float, busy: frozenset[int]) -> int:
    rows = connection.execute(
        sa.select(blob_uploads.c.content_id, blob_uploads.c.pieces)
        .where(blob_uploads.c.touched_at <= now - UPLOAD_GRACE_S)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    dead = [row for row in rows if row.content_id not in busy]
    for row in dead:
        # With the record gone the upload can not commit any more.
        connection.execute(blob_uploads.delete().where(blob_uploads.c.content_id == row.content_id))
        index.doom(connection, [object_key(row.content_id, number) for number in range(row.pieces)], now)
    return len(dead)


def _old_blocks(connection: sa.Connection, now: float) -> int:
    rows = connection.execute(
        sa.select(blob_blocks.c.content_id)
        .where(blob_blocks.c.created_at <= now - BLOCK_GRACE_S)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
    contents = rows.scalars().all()
    for content_id in contents:
        connection.execute(blob_blocks.delete().where(blob_blocks.c.content_id == content_id))
    index.discard_contents(connection, contents, now)
    return len(contents)


def _deleted_containers(connection: sa.Connection, now: float) -> int:
    container = connection.execute(
        sa.select(blob_containers.c.id)
        .where(blob_containers.c.deleted_at.is_not(None))
        .limit(1)
        .with_for_update(skip_locked=True)
    ).scalar_one_or_none()
    if container is None:
        return 0
    count = 0
    for table in (blobs, blob_blocks):
        contents = (
            connection.execute(
                sa.select(table.c.content_id).where(table.c.container_id == container).limit(_BATCH)
            )
            .scalars()
            .all()
        )
        index.discard_contents(connection, contents, now)
        for content_id in contents:
            connection.execute(table.delete().where(table.c.content_id == content_id))
        count += len(contents)
    if not count:
        connection.execute(blob_containers.delete().where(blob_containers.c.id == container))
        return 1
    return count


def _garbage(connection: sa.Connection, now: float, before: float, busy: frozenset[int]) -> int:
    found: Any = connection.execute(
        sa.select(blob_garbage.c.content_id)
        .where(blob_garbage.c.since <= before)
        .order_by(blob_garbage.c.since)
        .limit(_BATCH + len(busy))
        .with_for_update(skip_locked=True)
    ).scalars()
    free = [content_id for content_id in found if content_id not in busy]
    for content_id in free:
        of_content = blob_segments.c.content_id == content_id
        keys = connection.execute(
            sa.select(blob_segments.c.key).where(of_content, blob_segments.c.key.is_not(None)).distinct()
        )
        found_keys = keys.scalars().all()
        connection.execute(blob_segments.delete().where(of_content))
        connection.execute(blob_block_lists.delete().where(blob_block_lists.c.content_id == content_id))
        connection.execute(blob_garbage.delete().where(blob_garbage.c.content_id == content_id))
        index.doom(connection, found_keys, now)
    return len(free)
