"""The tables of the blob store: the index of what the object store holds (docs/storage.md).

A blob is a row; its bytes are a *content*: ordered segments, each an object of the object store (``key``) or a few
bytes kept here (``data``). Contents never change but for growing at the end, so a reader is never disturbed by a
writer; replaced contents become garbage and are swept later.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text, UniqueConstraint, text

from noriba.database.types import Json, Timestamp, metadata

# An Integer primary key is SQLite's own row id; PostgreSQL needs the wide type.
_Id = BigInteger().with_variant(Integer, "sqlite")
# Names are listed in the order of their UTF-8 bytes, whatever the database's locale.
_Name = Text().with_variant(Text(collation="C"), "postgresql")

blob_containers = Table(
    "blob_containers",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("account", Text, nullable=False),
    Column("name", _Name, nullable=False),
    Column("etag", Text, nullable=False),
    Column("metadata", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("modified_at", Timestamp, nullable=False),
    Column("deleted_at", Timestamp, index=True),
    UniqueConstraint("account", "name"),
)
"""A deleted container gives its name free at once (``account`` becomes empty, ``name`` the id) and is emptied by
the sweep."""

blobs = Table(
    "blobs",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("container_id", BigInteger, nullable=False),
    Column("name", _Name, nullable=False),
    Column("kind", Text, nullable=False),
    Column("content_id", BigInteger, nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("etag", Text, nullable=False),
    Column("content_type", Text),
    Column("content_encoding", Text),
    Column("content_language", Text),
    Column("content_disposition", Text),
    Column("cache_control", Text),
    Column("content_md5", LargeBinary),
    Column("metadata", Json, nullable=False),
    Column("tags", Json, nullable=False),
    Column("append_count", Integer, nullable=False, default=0),
    Column("inline_rows", Integer, nullable=False, default=0),
    Column("inline_bytes", BigInteger, nullable=False, default=0),
    Column("created_at", Timestamp, nullable=False),
    Column("modified_at", Timestamp, nullable=False),
    UniqueConstraint("container_id", "name"),
    Index(
        "ix_blobs_inline",
        "modified_at",
        sqlite_where=text("inline_bytes > 16384"),
        postgresql_where=text("inline_bytes > 16384"),
    ),
)
"""``inline_rows``/``inline_bytes`` count the segments of an append blob that compaction has not merged yet."""

blob_segments = Table(
    "blob_segments",
    metadata,
    Column("content_id", BigInteger, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("key", Text),
    Column("data", LargeBinary),
    Index("ix_blob_segments_key", "key"),
)
"""Bytes ``start`` to ``start + size`` of a content. Several contents may share an object (committed blocks, copies)."""

blob_blocks = Table(
    "blob_blocks",
    metadata,
    Column("container_id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", _Name, primary_key=True),
    Column("block_id", Text, primary_key=True),
    Column("content_id", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False, index=True),
)
"""Blocks put but not committed; each has a content of its own until then."""

blob_block_lists = Table(
    "blob_block_lists",
    metadata,
    Column("content_id", BigInteger, primary_key=True, autoincrement=False),
    Column("blocks", Json, nullable=False),
)
"""The committed blocks of a content, ``[[block id, size], …]``."""

blob_uploads = Table(
    "blob_uploads",
    metadata,
    Column("content_id", BigInteger, primary_key=True, autoincrement=False),
    Column("pieces", Integer, nullable=False),
    Column("touched_at", Timestamp, nullable=False, index=True),
)
"""Contents being written: objects ``0`` to ``pieces - 1`` of them may exist. Recorded before the first one is
written, gone with the commit."""

blob_garbage = Table(
    "blob_garbage",
    metadata,
    Column("content_id", BigInteger, primary_key=True, autoincrement=False),
    Column("since", Timestamp, nullable=False, index=True),
)
"""Contents that no blob has any more."""

blob_doomed_objects = Table(
    "blob_doomed_objects",
    metadata,
    Column("key", Text, primary_key=True),
    Column("delete_at", Timestamp, nullable=False, index=True),
)
"""Objects that nothing refers to any more, to be deleted from the object store."""
