"""Block blobs: blocks put one by one in any order, then committed as a list."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import msgspec
import sqlalchemy as sa

from noriba.database.blob_tables import blob_block_lists, blob_blocks, blob_segments
from noriba.models.errors import BadRequest
from noriba.storage import index
from noriba.storage.blobs import BlobStore
from noriba.storage.model import (
    NO_CONDITIONS,
    BlobHeaders,
    BlobProperties,
    Conditions,
    check_blob_name,
    no_blob,
)
from noriba.storage.uploads import fill

Source = Literal["Latest", "Committed", "Uncommitted"]
MAX_COMMITTED_BLOCKS = 50_000
MAX_UNCOMMITTED_BLOCKS = 100_000
MAX_BLOCK_ID_BYTES = 64


class BlockLists(msgspec.Struct, frozen=True, kw_only=True):
    """The (block id, size) pairs of a name; ``blob`` is None when nothing is committed yet."""

    committed: list[tuple[str, int]]
    uncommitted: list[tuple[str, int]]
    blob: BlobProperties | None


def check_block_id(block_id: str) -> None:
    """Raise BadRequest unless ``block_id`` is Base64 of at most 64 bytes."""
    try:
        length = len(base64.b64decode(block_id, validate=True))
    except (binascii.Error, ValueError) as error:
        raise BadRequest("The block id is not valid Base64.", code="InvalidQueryParameterValue") from error
    if not 0 < length <= MAX_BLOCK_ID_BYTES:
        raise BadRequest("A block id has 1 to 64 bytes before its encoding.", code="OutOfRangeInput")


async def put_block(
    store: BlobStore,
    account: str,
    container: str,
    name: str,
    block_id: str,
    data: bytes | AsyncIterator[bytes],
) -> None:
    """Put a block, uncommitted. A block of the same id that is not committed yet is replaced.

    Raises NotFound (container), BadRequest (ids, names), Conflict (a blob of another type), Unavailable.
    """
    check_blob_name(name)
    check_block_id(block_id)

    def check(connection: sa.Connection) -> int:
        inside = index.container_id(connection, account, container)
        blob = index.in_container(connection, inside, name)
        if blob is not None:
            index.check_kind(blob, "BlockBlob")
        return inside

    await store.database.read(check)
    now = store.clock()
    async with store.upload() as upload:
        await fill(upload, data)

        def write(connection: sa.Connection) -> None:
            inside = check(connection)
            of_name = (blob_blocks.c.container_id == inside, blob_blocks.c.name == name)
            other = connection.execute(
                sa.select(blob_blocks.c.block_id, blob_blocks.c.content_id)
                .where(*of_name)
                .order_by(blob_blocks.c.block_id == block_id)
                .limit(1)
            ).one_or_none()
            if other is not None and len(other.block_id) != len(block_id):
                raise BadRequest(
                    "All block ids of a blob must have the same length.", code="InvalidBlobOrBlock"
                )
            of_block = (*of_name, blob_blocks.c.block_id == block_id)
            same = connection.execute(
                sa.select(blob_blocks.c.content_id).where(*of_block)
            ).scalar_one_or_none()
            if same is not None:
                index.discard_contents(connection, [same], now)
                connection.execute(blob_blocks.delete().where(*of_block))
            upload.commit(connection)
            connection.execute(
                blob_blocks.insert().values(
                    container_id=inside,
                    name=name,
                    block_id=block_id,
                    content_id=upload.content_id,
                    size=upload.size,
                    created_at=now,
                )
            )

        await store.write(write)


async def put_block_list(
    store: BlobStore,
    account: str,
    container: str,
    name: str,
    entries: Sequence[tuple[Source, str]],
    *,
    headers: BlobHeaders | None = None,
    metadata: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    conditions: Conditions = NO_CONDITIONS,
) -> BlobProperties:
    """Make the blob of these blocks, in this order; uncommitted blocks left out are dropped.

    Raises BadRequest (InvalidBlockList when a block is not there), NotFound, Conflict, PreconditionFailed.
    """
    check_blob_name(name)
    if len(entries) > MAX_COMMITTED_BLOCKS:
        raise BadRequest(f"A block list has at most {MAX_COMMITTED_BLOCKS} blocks.", code="BlockListTooLong")
    now = store.clock()
    content_id = index.new_content_id()

    def write(connection: sa.Connection) -> BlobProperties:
        inside = index.container_id(connection, account, container)
        old = index.in_container(connection, inside, name, lock=True)
        if old is not None:
            index.check_kind(old, "BlockBlob")
        conditions.check_write(old)
        chosen = _choose(connection, inside, name, old, entries)
        size = _assemble(connection, content_id, chosen)
        used = {block.content_id for block in chosen if block.is_whole}
        _drop_used(connection, inside, name, used)
        connection.execute(
            blob_block_lists.insert().values(
                content_id=content_id, blocks=[[block.block_id, block.size] for block in chosen]
            )
        )
        new = index.Replacement(
            kind="BlockBlob",
            content_id=content_id,
            size=size,
            headers=headers or BlobHeaders(content_type="application/octet-stream"),
            metadata=metadata or {},
            tags=tags or {},
        )
        return index.replace_blob(connection, account, container, name, new, conditions, now)

    return await store.write(write)


class _Chosen(msgspec.Struct, frozen=True):
    """A block for the new content: bytes ``start`` to ``start + size`` of another one (all of it when whole)."""

    block_id: str
    content_id: int
    start: int
    size: int
    is_whole: bool


def _choose(
    connection: sa.Connection,
    container: int,
    name: str,
    old: BlobProperties | None,
    entries: Sequence[tuple[Source, str]],
) -> list[_Chosen]:
    rows = connection.execute(
        sa.select(blob_blocks.c.block_id, blob_blocks.c.content_id, blob_blocks.c.size).where(
            blob_blocks.c.container_id == container, blob_blocks.c.name == name
        )
    )
    uncommitted = {
        row.block_id: _Chosen(row.block_id, row.content_id, 0, row.size, is_whole=True) for row in rows
    }
    committed: dict[str, _Chosen] = {}
    if old is not None:
        start = 0
        for block_id, size in index.committed_blocks(connection, old.content_id):
            committed[block_id] = _Chosen(block_id, old.content_id, start, size, is_whole=False)
            start += size
    chosen = []
    for source, block_id in entries:
        block = None
        if source != "Committed":
            block = uncommitted.get(block_id)
        if block is None and source != "Uncommitted":
            block = committed.get(block_id)
        if block is None:
            raise BadRequest(
                f"The block list names the block {block_id!r} ({source}), which was not put.",
                code="InvalidBlockList",
            )
        chosen.append(block)
    return chosen


def _assemble(connection: sa.Connection, content_id: int, chosen: Sequence[_Chosen]) -> int:
    """Give the new content its segments; returns its size. Blocks that were uncommitted are moved, others shared."""
    position = 0
    moved: dict[int, int] = {}
    moves = []
    shares: list[tuple[int, int, int, int]] = []
    for block in chosen:
        if not block.is_whole:
            shares.append((block.content_id, block.start, block.size, position))
        elif block.content_id in moved:
            shares.append((content_id, moved[block.content_id], block.size, position))
        else:
            moved[block.content_id] = position
            moves.append({"old_id": block.content_id, "shift": position})
        position += block.size
    if moves:
        connection.execute(
            blob_segments.update()
            .where(blob_segments.c.content_id == sa.bindparam("old_id"))
            .values(content_id=content_id, start=blob_segments.c.start + sa.bindparam("shift")),
            moves,
        )
    for source, start, size, target in shares:
        index.share_segments(connection, source, start, size, content_id, target)
    return position


def _drop_used(connection: sa.Connection, container: int, name: str, used: set[int]) -> None:
    if used:
        connection.execute(
            blob_blocks.delete().where(
                blob_blocks.c.container_id == container,
                blob_blocks.c.name == name,
                blob_blocks.c.content_id == sa.bindparam("used"),
            ),
            [{"used": content_id} for content_id in used],
        )


async def block_lists(store: BlobStore, account: str, container: str, name: str) -> BlockLists:
    """The blocks of a name. Raises NotFound when there is neither a blob nor a block, Conflict for other types."""
    check_blob_name(name)

    def read(connection: sa.Connection) -> BlockLists:
        inside = index.container_id(connection, account, container)
        blob = index.in_container(connection, inside, name)
        rows = connection.execute(
            sa.select(blob_blocks.c.block_id, blob_blocks.c.size)
            .where(blob_blocks.c.container_id == inside, blob_blocks.c.name == name)
            .order_by(blob_blocks.c.block_id)
        ).all()
        if blob is None and not rows:
            raise no_blob(name)
        if blob is not None:
            index.check_kind(blob, "BlockBlob")
        return BlockLists(
            committed=[] if blob is None else index.committed_blocks(connection, blob.content_id),
            uncommitted=[(row.block_id, row.size) for row in rows],
            blob=blob,
        )

    return await store.database.read(read, heavy=True)
