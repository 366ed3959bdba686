"""Append blobs: a content that grows. Small appends stand in the database until compaction merges them."""

from __future__ import annotations

import sqlalchemy as sa

from noriba.database.blob_tables import blob_containers, blobs
from noriba.storage import index
from noriba.storage.model import BlobHeaders, Conditions, Segment

_PART_BYTES = 256 * 1024
LOG_TYPE = "text/plain; charset=utf-8"


def append_in(
    connection: sa.Connection,
    account: str,
    container: str,
    name: str,
    offset: int,
    data: bytes,
    now: float,
) -> int:
    """See BlobStore.append_in."""
    row = connection.execute(
        sa.select(blobs.c.id, blobs.c.content_id, blobs.c.size)
        .join(blob_containers, blob_containers.c.id == blobs.c.container_id)
        .where(
            blob_containers.c.account == account,
            blob_containers.c.name == container,
            blobs.c.name == name,
        )
    ).one_or_none()
    size = 0 if row is None else int(row.size)
    fresh = data[size - offset :] if offset <= size else b""
    if not fresh:
        return size
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
    index.insert_segments(connection, content_id, parts)
    connection.execute(
        blobs.update()
        .where(blobs.c.content_id == content_id)
        .values(
            # A log is a growing blob whatever it was made as.
            kind="AppendBlob",
            size=size + len(fresh),
            etag=index.new_etag(),
            content_md5=None,
            append_count=blobs.c.append_count + 1,
            inline_rows=blobs.c.inline_rows + len(parts),
            inline_bytes=blobs.c.inline_bytes + len(fresh),
            modified_at=now,
        )
    )
    return size + len(fresh)
