"""The blob index in the database: functions of a connection, used inside reads and writes (database/connection.py)."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

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
from noriba.models.errors import Conflict, Unavailable
from noriba.storage.model import (
    BlobHeaders,
    BlobKind,
    BlobProperties,
    Conditions,
    ContainerProperties,
    Segment,
    no_blob,
    no_container,
)

# Statements that most requests run are built once: building one takes longer than running it.
_PROPERTIES = [column for column in blobs.c if column.name not in ("inline_rows", "inline_bytes")]
_IN_CONTAINER = sa.select(*_PROPERTIES).where(
    blobs.c.container_id == sa.bindparam("container"), blobs.c.name == sa.bindparam("name")
)
_FIND = (
    sa.select(*_PROPERTIES)
    .join(blob_containers, blob_containers.c.id == blobs.c.container_id)
    .where(
        blob_containers.c.account == sa.bindparam("account"),
        blob_containers.c.name == sa.bindparam("container"),
        blobs.c.name == sa.bindparam("name"),
    )
)
# Other replicas of the server write too: what a write looks at stays as it is until its end (SQLite has one writer).
_IN_CONTAINER_LOCKED = _IN_CONTAINER.with_for_update()
_FIND_LOCKED = _FIND.with_for_update(of=blobs)
_CONTAINER = sa.select(blob_containers).where(
    blob_containers.c.account == sa.bindparam("account"), blob_containers.c.name == sa.bindparam("container")
)
_CONTAINER_ID = _CONTAINER.with_only_columns(blob_containers.c.id)
_SEGMENTS_FROM = (
    sa.select(blob_segments.c.start, blob_segments.c.size, blob_segments.c.key, blob_segments.c.data)
    .where(
        blob_segments.c.content_id == sa.bindparam("content_id"),
        blob_segments.c.start
        >= sa.select(sa.func.max(blob_segments.c.start))
        .where(
            blob_segments.c.content_id == sa.bindparam("content_id"),
            blob_segments.c.start <= sa.bindparam("position"),
        )
        .scalar_subquery(),
    )
    .order_by(blob_segments.c.start)
    .limit(sa.bindparam("limit"))
)
_BLOCKS_OF_NAME = sa.select(blob_blocks.c.content_id).where(
    blob_blocks.c.container_id == sa.bindparam("container"), blob_blocks.c.name == sa.bindparam("name")
)
_INSERT_BLOB = blobs.insert()
_REPLACE_BLOB = blobs.update().where(blobs.c.content_id == sa.bindparam("old_content_id"))
_DELETE_BLOB = blobs.delete().where(blobs.c.content_id == sa.bindparam("content_id"))
_INSERT_GARBAGE = blob_garbage.insert()
_INSERT_SEGMENT = blob_segments.insert()

_id_lock = threading.Lock()
_last_id = 0


def new_content_id() -> int:
    """An id that no content has had: microseconds and 11 random bits, so that ids grow (63 bits in all)."""
    global _last_id
    with _id_lock:
        _last_id = max(_last_id + 1, time.time_ns() // 1000 << 11 | secrets.randbits(11))
        return _last_id


def new_etag() -> str:
    """An entity tag, which looks like Azure's."""
    return f"0x8D{secrets.token_hex(7).upper()}"


# --- containers


def container_id(connection: sa.Connection, account: str, container: str) -> int:
    """The id of a container. Raises NotFound."""
    found = connection.execute(
        _CONTAINER_ID, {"account": account, "container": container}
    ).scalar_one_or_none()
    if found is None:
        raise no_container(container)
    return int(found)


def insert_container(
    connection: sa.Connection, account: str, container: str, metadata: dict[str, str], now: float
) -> ContainerProperties | None:
    """Add a container; None when there is one of that name."""
    if find_container(connection, account, container) is not None:
        return None
    etag = new_etag()
    connection.execute(
        blob_containers.insert().values(
            account=account, name=container, etag=etag, metadata=metadata, created_at=now, modified_at=now
        )
    )
    return ContainerProperties(name=container, etag=etag, metadata=metadata, created_at=now, modified_at=now)


def find_container(connection: sa.Connection, account: str, container: str) -> ContainerProperties | None:
    """A container's properties."""
    row = connection.execute(_CONTAINER, {"account": account, "container": container}).one_or_none()
    return None if row is None else container_of(row)


def container_of(row: sa.Row[Any]) -> ContainerProperties:
    """The container in a row."""
    return ContainerProperties(
        name=row.name,
        etag=row.etag,
        metadata=row.metadata,
        created_at=row.created_at,
        modified_at=row.modified_at,
    )


# --- blobs


def find_blob(connection: sa.Connection, account: str, container: str, name: str) -> BlobProperties | None:
    """A blob's properties; None when it or its container does not exist."""
    row = connection.execute(_FIND, {"account": account, "container": container, "name": name}).one_or_none()
    return None if row is None else blob_of(row)


def get_blob(
    connection: sa.Connection, account: str, container: str, name: str, *, lock: bool = False
) -> BlobProperties:
    """A blob's properties. Raises NotFound, which tells a missing container apart. ``lock`` it to change it."""
    parameters = {"account": account, "container": container, "name": name}
    row = connection.execute(_FIND_LOCKED if lock else _FIND, parameters).one_or_none()
    blob = None if row is None else blob_of(row)
    if blob is None:
        container_id(connection, account, container)
        raise no_blob(name)
    return blob


def blob_of(row: sa.Row[Any]) -> BlobProperties:
    """The blob in a row of ``select_blobs`` or of the table."""
    return BlobProperties(
        name=row.name,
        kind=row.kind,
        content_id=row.content_id,
        size=row.size,
        etag=row.etag,
        content_type=row.content_type,
        content_encoding=row.content_encoding,
        content_language=row.content_language,
        content_disposition=row.content_disposition,
        cache_control=row.cache_control,
        content_md5=row.content_md5,
        metadata=row.metadata,
        tags=row.tags,
        append_count=row.append_count,
        created_at=row.created_at,
        modified_at=row.modified_at,
    )


def in_container(
    connection: sa.Connection, container: int, name: str, *, lock: bool = False
) -> BlobProperties | None:
    """The blob of that name in a container given by id. ``lock`` it to change it."""
    parameters = {"container": container, "name": name}
    row = connection.execute(_IN_CONTAINER_LOCKED if lock else _IN_CONTAINER, parameters).one_or_none()
    return None if row is None else blob_of(row)


class Replacement(msgspec.Struct, kw_only=True):
    """What a blob is to become: a content whose segments are in the table already, and everything about it."""

    kind: BlobKind
    content_id: int
    size: int
    headers: BlobHeaders
    metadata: dict[str, str]
    tags: dict[str, str]


def replace_blob(
    connection: sa.Connection,
    account: str,
    container: str,
    name: str,
    new: Replacement,
    conditions: Conditions,
    now: float,
) -> BlobProperties:
    """Make or overwrite a blob, whole; what it held becomes garbage. Raises NotFound, Conflict, PreconditionFailed."""
    inside = container_id(connection, account, container)
    old = in_container(connection, inside, name, lock=True)
    conditions.check_write(old)
    values: dict[str, Any] = {
        "kind": new.kind,
        "content_id": new.content_id,
        "size": new.size,
        "etag": new_etag(),
        **msgspec.structs.asdict(new.headers),
        "metadata": new.metadata,
        "tags": new.tags,
        "append_count": 0,
        "inline_rows": 0,
        "inline_bytes": 0,
        "created_at": now if old is None else old.created_at,
        "modified_at": now,
    }
    if old is None:
        connection.execute(_INSERT_BLOB, {"container_id": inside, "name": name, **values})
    else:
        if old.content_id != new.content_id:
            discard_contents(connection, [old.content_id], now)
        connection.execute(_REPLACE_BLOB, {"old_content_id": old.content_id, **values})
    discard_blocks(connection, inside, name, now)
    del values["inline_rows"], values["inline_bytes"]
    return BlobProperties(name=name, **values)


def delete_blob(
    connection: sa.Connection, account: str, container: str, name: str, conditions: Conditions, now: float
) -> None:
    """Delete a blob. Raises NotFound, PreconditionFailed."""
    inside = container_id(connection, account, container)
    old = in_container(connection, inside, name, lock=True)
    if old is None:
        raise no_blob(name)
    conditions.check_write(old)
    connection.execute(_DELETE_BLOB, {"content_id": old.content_id})
    discard_contents(connection, [old.content_id], now)
    discard_blocks(connection, inside, name, now)


def delete_all(
    connection: sa.Connection, container: int, found: Sequence[BlobProperties], now: float
) -> None:
    """Delete these blobs of a container given by id."""
    discard_contents(connection, [blob.content_id for blob in found], now)
    for blob in found:
        connection.execute(_DELETE_BLOB, {"content_id": blob.content_id})
        discard_blocks(connection, container, blob.name, now)


def discard_blocks(connection: sa.Connection, container: int, name: str, now: float) -> None:
    """Drop the uncommitted blocks of a name (whatever replaces or deletes the blob does)."""
    contents = connection.execute(_BLOCKS_OF_NAME, {"container": container, "name": name}).scalars().all()
    if contents:
        discard_contents(connection, contents, now)
        connection.execute(
            blob_blocks.delete().where(blob_blocks.c.container_id == container, blob_blocks.c.name == name)
        )


def discard_contents(connection: sa.Connection, content_ids: Iterable[int], now: float) -> None:
    """Contents that no blob has any more: the sweep takes them after a while."""
    rows = [{"content_id": content_id, "since": now} for content_id in content_ids]
    if rows:
        connection.execute(_INSERT_GARBAGE, rows)


# --- segments


def insert_segments(connection: sa.Connection, content_id: int, segments: Sequence[Segment]) -> None:
    """Add the segments of a content that has been written."""
    if segments:
        connection.execute(
            _INSERT_SEGMENT,
            [
                {"content_id": content_id, "start": s.start, "size": s.size, "key": s.key, "data": s.data}
                for s in segments
            ],
        )


def share_segments(
    connection: sa.Connection, source: int, start: int, size: int, target: int, target_start: int
) -> None:
    """Give ``target`` at ``target_start`` the bytes of ``source``; both refer to the same objects.

    The range must begin and end where segments do (blocks and whole contents do).
    """
    columns = blob_segments.c
    connection.execute(
        blob_segments.insert().from_select(
            ["content_id", "start", "size", "key", "data"],
            sa.select(
                sa.literal(target, sa.BigInteger),
                columns.start + sa.literal(target_start - start, sa.BigInteger),
                columns.size,
                columns.key,
                columns.data,
            ).where(columns.content_id == source, columns.start >= start, columns.start < start + size),
        )
    )


def end_upload(connection: sa.Connection, content_id: int) -> None:
    """The upload's objects belong to a content now. Raises Unavailable when the sweep took the upload for dead."""
    ended = connection.execute(blob_uploads.delete().where(blob_uploads.c.content_id == content_id))
    if ended.rowcount != 1:
        raise Unavailable(
            "The upload took too long and was given up. Send it again.", code="OperationTimedOut"
        )


def segments_from(connection: sa.Connection, content_id: int, position: int, limit: int) -> list[Segment]:
    """The segment that holds byte ``position`` of a content and up to ``limit - 1`` after it."""
    rows = connection.execute(
        _SEGMENTS_FROM, {"content_id": content_id, "position": position, "limit": limit}
    )
    return [Segment(*row) for row in rows]


def doom(connection: sa.Connection, keys: Iterable[str], delete_at: float) -> None:
    """Have these objects deleted at that time, unless a content has them (still, or shares them)."""
    for key in keys:
        kept = connection.execute(
            sa.select(blob_segments.c.content_id).where(blob_segments.c.key == key).limit(1)
        ).scalar_one_or_none()
        doomed = connection.execute(
            sa.select(blob_doomed_objects.c.key).where(blob_doomed_objects.c.key == key)
        ).scalar_one_or_none()
        if kept is None and doomed is None:
            connection.execute(blob_doomed_objects.insert().values(key=key, delete_at=delete_at))


def committed_blocks(connection: sa.Connection, content_id: int) -> list[tuple[str, int]]:
    """The (block id, size) pairs of a content made of blocks, in order."""
    found = connection.execute(
        sa.select(blob_block_lists.c.blocks).where(blob_block_lists.c.content_id == content_id)
    ).scalar_one_or_none()
    return [(block_id, size) for block_id, size in found or []]


def check_kind(blob: BlobProperties, kind: BlobKind) -> None:
    """Raise Conflict unless the blob is of that kind."""
    if blob.kind != kind:
        raise Conflict(
            f"The blob '{blob.name}' is of type {blob.kind}; this operation is for type {kind}.",
            code="InvalidBlobType",
        )
