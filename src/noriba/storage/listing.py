"""Listing blobs in order of name, flat or by folder, a page at a time."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from noriba.database.blob_tables import blob_blocks, blobs
from noriba.storage.index import blob_of
from noriba.storage.model import BlobPage, BlobProperties

_CHUNK = 256


def after_prefix(prefix: str) -> str | None:
    """The least string greater than all that start with ``prefix``; None when there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            # Surrogates are no characters: U+E000 follows U+D7FF.
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return None


def list_blobs(
    connection: sa.Connection,
    container: int,
    prefix: str,
    delimiter: str | None,
    marker: str | None,
    limit: int,
    *,
    uncommitted: bool = False,
) -> BlobPage:
    """A page of at most ``limit`` blobs and prefixes. ``marker`` is the first name that may be on the page.

    With a delimiter, names that go on after it (beyond ``prefix``) are folded into one prefix each; the search then
    jumps over them, so that the cost is that of the page and not of what lies in the folders.
    """
    end = after_prefix(prefix)
    cursor: str | None = max(prefix, marker or "")
    found: list[BlobProperties] = []
    prefixes: list[str] = []
    while cursor is not None and len(found) + len(prefixes) < limit:
        wanted = limit - len(found) - len(prefixes)
        chunk = min(wanted, _CHUNK) if delimiter else wanted
        rows = _rows(connection, container, cursor, end, chunk, uncommitted)
        next_cursor = rows[-1].name + "\0" if len(rows) == chunk else None
        for blob in rows:
            at = blob.name.find(delimiter, len(prefix)) if delimiter else -1
            if at < 0:
                found.append(blob)
                continue
            folder = blob.name[: at + len(delimiter or "")]
            prefixes.append(folder)
            next_cursor = after_prefix(folder)
            break
        cursor = next_cursor
    if cursor is not None and not _rows(connection, container, cursor, end, 1, uncommitted):
        cursor = None
    return BlobPage(blobs=found, prefixes=prefixes, marker=cursor)


def _rows(
    connection: sa.Connection,
    container: int,
    cursor: str,
    end: str | None,
    limit: int,
    uncommitted: bool,
) -> list[BlobProperties]:
    exclusive = cursor.endswith("\0")
    start = cursor.rstrip("\0")

    def bounded(name: Any) -> list[Any]:
        bounds = [name > start if exclusive else name >= start]
        return bounds if end is None else [*bounds, name < end]

    rows = connection.execute(
        sa.select(blobs)
        .where(blobs.c.container_id == container, *bounded(blobs.c.name))
        .order_by(blobs.c.name)
        .limit(limit)
    )
    committed = [blob_of(row) for row in rows]
    if not uncommitted:
        return committed
    names = connection.execute(
        sa.select(blob_blocks.c.name, sa.func.max(blob_blocks.c.created_at).label("at"))
        .where(blob_blocks.c.container_id == container, *bounded(blob_blocks.c.name))
        .group_by(blob_blocks.c.name)
        .order_by(blob_blocks.c.name)
        .limit(limit)
    ).all()
    known = {blob.name for blob in committed}
    pending = [
        BlobProperties(
            name=row.name,
            content_id=0,
            size=0,
            etag="0x0",
            created_at=row.at,
            modified_at=row.at,
            committed=False,
        )
        for row in names
        if row.name not in known
        and connection.execute(
            sa.select(blobs.c.id).where(blobs.c.container_id == container, blobs.c.name == row.name)
        ).scalar_one_or_none()
        is None
    ]
    return sorted(committed + pending, key=lambda blob: blob.name)[:limit]
