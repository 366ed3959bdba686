"""The blob store: blobs of all storage accounts, indexed by the database, their bytes in an object store.

Names are data and never part of a path. A blob is replaced whole and at once; what is half written is nobody's to
see; readers keep reading what they opened (docs/storage.md).
"""

from __future__ import annotations

import asyncio
import builtins
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TypeVar

import sqlalchemy as sa

from noriba.database import Database
from noriba.database.blob_tables import blob_containers
from noriba.database.connection import Statement
from noriba.models.errors import Conflict
from noriba.storage import appending, index, listing, reading
from noriba.storage.model import (
    NO_CONDITIONS,
    BlobHeaders,
    BlobKind,
    BlobPage,
    BlobProperties,
    Conditions,
    ContainerProperties,
    InvalidRange,
    check_blob_name,
    check_container_name,
)
from noriba.storage.objects import Objects
from noriba.storage.upkeep import Upkeep
from noriba.storage.uploads import Buffered, Upload, fill

T = TypeVar("T")

READING_GRACE_S = 900.0
"""How long replaced bytes are kept for readers in other processes."""


class BlobStore:
    """All blobs. ``clock`` gives UTC seconds."""

    def __init__(
        self, database: Database, objects: Objects, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.database = database
        self.objects = objects
        self.clock = clock
        self.reading: Counter[int] = Counter()
        """Contents that readers of this process hold: the sweep leaves them alone."""
        self.uploading: set[int] = set()
        """Contents being written by this process."""
        self.reading_grace_s = READING_GRACE_S
        self.upkeep = Upkeep(self)
        self._buffered = Buffered()
        self._aborts: set[asyncio.Task[None]] = set()

    async def write(self, statement: Statement[T]) -> T:
        """``database.write``, again when another replica of the server made the same row in that moment."""
        try:
            return await self.database.write(statement)
        except sa.exc.IntegrityError:
            return await self.database.write(statement)

    # --- containers

    async def ensure_container(self, account: str, container: str) -> None:
        """Make a container unless there is one."""
        check_container_name(container)
        if await self.container(account, container) is None:
            now = self.clock()
            await self.write(
                lambda connection: index.insert_container(connection, account, container, {}, now)
            )

    async def create_container(
        self, account: str, container: str, metadata: dict[str, str] | None = None
    ) -> ContainerProperties:
        """Make a container. Raises Conflict when there is one."""
        check_container_name(container)
        now = self.clock()
        made = await self.write(
            lambda connection: index.insert_container(connection, account, container, metadata or {}, now)
        )
        if made is None:
            raise Conflict(f"The container '{container}' exists already.", code="ContainerAlreadyExists")
        return made

    async def container(self, account: str, container: str) -> ContainerProperties | None:
        """A container's properties."""
        return await self.database.read(
            lambda connection: index.find_container(connection, account, container)
        )

    async def list_containers(
        self, account: str, prefix: str = "", marker: str | None = None, limit: int = 5000
    ) -> tuple[builtins.list[ContainerProperties], str | None]:
        """A page of an account's containers and the name that the next page starts with."""
        table = blob_containers

        def read(connection: sa.Connection) -> builtins.list[ContainerProperties]:
            query = (
                sa.select(table)
                .where(table.c.account == account, table.c.name >= max(prefix, marker or ""))
                .order_by(table.c.name)
                .limit(limit + 1)
            )
            end = listing.after_prefix(prefix)
            if end is not None:
                query = query.where(table.c.name < end)
            return [index.container_of(row) for row in connection.execute(query)]

        found = await self.database.read(read, heavy=True)
        return found[:limit], found[limit].name if len(found) > limit else None

    async def delete_container(self, account: str, container: str) -> None:
        """Delete a container with all its blobs. Raises NotFound."""
        now = self.clock()

        def write(connection: sa.Connection) -> None:
            inside = index.container_id(connection, account, container)
            # The sweep empties it; its name is free at once.
            connection.execute(
                blob_containers.update()
                .where(blob_containers.c.id == inside)
                .values(account="", name=str(inside), deleted_at=now)
            )

        await self.write(write)

    # --- writing

    async def put(
        self,
        account: str,
        container: str,
        name: str,
        data: bytes | AsyncIterator[bytes],
        *,
        content_type: str | None = None,
        metadata: dict[str, str] | None = None,
        headers: BlobHeaders | None = None,
        tags: dict[str, str] | None = None,
        kind: BlobKind = "BlockBlob",
        conditions: Conditions = NO_CONDITIONS,
    ) -> BlobProperties:
        """Make or overwrite a blob. It is there, whole and durable, when this returns; not at all when it raises.

        Raises NotFound (no such container), BadRequest (name), Conflict and PreconditionFailed (conditions),
        Unavailable, and whatever ``data`` raises.
        """
        await self.check_before_upload(account, container, name, conditions)
        headers = headers or BlobHeaders(content_type=content_type or "application/octet-stream")
        async with self.upload() as upload:
            await fill(upload, data)
            return await self.commit(
                upload,
                (account, container, name),
                headers=headers,
                metadata=metadata,
                tags=tags,
                kind=kind,
                conditions=conditions,
            )

    async def commit(
        self,
        upload: Upload,
        target: tuple[str, str, str],
        *,
        headers: BlobHeaders,
        metadata: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
        kind: BlobKind = "BlockBlob",
        conditions: Conditions = NO_CONDITIONS,
    ) -> BlobProperties:
        """Make a finished upload the blob ``target`` (account, container, name). Raises as ``put`` does."""
        account, container, name = target
        now = self.clock()
        new = index.Replacement(
            kind=kind,
            content_id=upload.content_id,
            size=upload.size,
            headers=headers,
            metadata=metadata or {},
            tags=tags or {},
        )

        def write(connection: sa.Connection) -> BlobProperties:
            upload.commit(connection)
            return index.replace_blob(connection, account, container, name, new, conditions, now)

        return await self.write(write)

    async def check_before_upload(
        self, account: str, container: str, name: str, conditions: Conditions
    ) -> None:
        """Raise what the commit would raise, before bytes are sent in vain (the commit checks again)."""
        check_blob_name(name)

        def check(connection: sa.Connection) -> None:
            index.container_id(connection, account, container)
            if conditions != NO_CONDITIONS:
                conditions.check_write(index.find_blob(connection, account, container, name))

        await self.database.read(check)

    def upload(self) -> UploadScope:
        """An upload that is aborted unless the block ends well: ``async with blobs.upload() as upload``."""
        return UploadScope(self)

    def new_upload(self) -> Upload:
        """An upload for ``UploadScope``."""
        return Upload(self.database, self.objects, self._buffered, self.clock())

    def abort_later(self, upload: Upload) -> asyncio.Task[None]:
        """Abort in a task of its own, so that a cancelled request still cleans up."""
        task = asyncio.ensure_future(upload.abort())
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)
        return task

    def append_in(
        self,
        connection: sa.Connection,
        account: str,
        container: str,
        name: str,
        offset: int,
        data: bytes,
        now: float,
    ) -> int:
        """Inside a write: add ``data``, which belongs at ``offset``, to a blob that grows; returns the size held.

        What is held already is skipped, so that a repeated append does nothing; data beyond the end (a gap) is not
        taken. The blob and its container are made when missing, by an empty append too.
        """
        grown = appending.append_in(connection, account, container, name, offset, data, now)
        if grown.is_due:
            self.compact_later(grown.content_id)
        return grown.size

    def compact_later(self, content_id: int) -> None:
        """Have the upkeep look at an append blob (from any thread)."""
        self.upkeep.compact_later(content_id)

    async def delete(
        self, account: str, container: str, name: str, *, conditions: Conditions = NO_CONDITIONS
    ) -> None:
        """Delete a blob. Raises NotFound, PreconditionFailed."""
        check_blob_name(name)
        now = self.clock()
        await self.write(
            lambda connection: index.delete_blob(connection, account, container, name, conditions, now)
        )

    async def delete_prefix(self, account: str, container: str, prefix: str) -> int:
        """Delete all blobs whose names start with ``prefix``; returns how many."""
        count = 0
        while True:
            now = self.clock()

            def write(connection: sa.Connection, now: float = now) -> int:
                inside = index.container_id(connection, account, container)
                page = listing.list_blobs(connection, inside, prefix, None, None, 500)
                index.delete_all(connection, inside, page.blobs, now)
                return len(page.blobs)

            deleted = await self.write(write)
            count += deleted
            if not deleted:
                return count

    # --- reading

    async def head(self, account: str, container: str, name: str) -> BlobProperties | None:
        """A blob's properties; None when it (or its container) does not exist."""
        return await self.database.read(
            lambda connection: index.find_blob(connection, account, container, name)
        )

    async def get(self, account: str, container: str, name: str) -> BlobProperties:
        """A blob's properties. Raises NotFound (BlobNotFound or ContainerNotFound)."""
        check_blob_name(name)
        return await self.database.read(
            lambda connection: index.get_blob(connection, account, container, name)
        )

    async def open(
        self, account: str, container: str, name: str, start: int = 0, end: int | None = None
    ) -> tuple[BlobProperties, AsyncIterator[bytes]]:
        """A blob's properties and its bytes from ``start`` up to ``end`` (not included; None: all).

        Raises NotFound, and InvalidRange when ``start`` is beyond the last byte (an empty blob is empty from 0).
        """
        blob = await self.get(account, container, name)
        return blob, self.read(blob, start, end)

    def read(self, blob: BlobProperties, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of a blob as it was when its properties were read. Raises InvalidRange."""
        if start > blob.size or (start == blob.size and start > 0):
            raise InvalidRange(blob.size)
        return self.read_content(blob.content_id, start, blob.size if end is None else min(end, blob.size))

    async def read_all(self, account: str, container: str, name: str) -> bytes:
        """All bytes of a (small) blob. Raises NotFound."""
        _, chunks = await self.open(account, container, name)
        return b"".join([chunk async for chunk in chunks])

    def read_content(self, content_id: int, position: int, end: int) -> AsyncIterator[bytes]:
        """Bytes ``position`` to ``end`` of a content, in chunks."""
        return reading.read_content(self, content_id, position, end)

    async def list(
        self,
        account: str,
        container: str,
        prefix: str = "",
        delimiter: str | None = None,
        marker: str | None = None,
        limit: int = 5000,
        *,
        uncommitted: bool = False,
    ) -> BlobPage:
        """A page of blobs, and with a delimiter of prefixes, in order of name. Raises NotFound (container)."""

        def read(connection: sa.Connection) -> BlobPage:
            inside = index.container_id(connection, account, container)
            return listing.list_blobs(
                connection, inside, prefix, delimiter, marker, limit, uncommitted=uncommitted
            )

        return await self.database.read(read, heavy=limit > 100)

    async def start(self) -> None:
        """Begin with the upkeep: compaction and the sweep."""
        self.upkeep.start()

    async def stop(self) -> None:
        """End the upkeep, wait for what is being cleaned up and close the object store."""
        await self.upkeep.stop()
        while self._aborts:
            await asyncio.wait(self._aborts)
        self.objects.close()


class UploadScope:
    """See ``BlobStore.upload``."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._upload = store.new_upload()

    async def __aenter__(self) -> Upload:
        self._store.uploading.add(self._upload.content_id)
        return self._upload

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                aborting = self._store.abort_later(self._upload)
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(aborting)
        finally:
            self._store.uploading.discard(self._upload.content_id)
