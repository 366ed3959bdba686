"""Changes to a blob that leave its bytes alone, copies, and containers' metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.database.blob_tables import blob_block_lists, blob_containers, blobs
from noriba.storage import index
from noriba.storage.blobs import BlobStore
from noriba.storage.model import (
    NO_CONDITIONS,
    BlobHeaders,
    BlobProperties,
    Conditions,
    ContainerProperties,
    check_blob_name,
    no_container,
)


async def set_metadata(
    store: BlobStore,
    account: str,
    container: str,
    name: str,
    metadata: dict[str, str],
    *,
    conditions: Conditions = NO_CONDITIONS,
) -> BlobProperties:
    """Replace a blob's metadata. Raises NotFound, PreconditionFailed."""
    return await _update(store, account, container, name, lambda _: {"metadata": metadata}, conditions)


async def set_headers(
    store: BlobStore,
    account: str,
    container: str,
    name: str,
    headers: BlobHeaders,
    *,
    conditions: Conditions = NO_CONDITIONS,
) -> BlobProperties:
    """Replace a blob's content headers (what is not given is cleared). Raises NotFound, PreconditionFailed."""
    return await _update(
        store, account, container, name, lambda _: msgspec.structs.asdict(headers), conditions
    )


async def set_tags(
    store: BlobStore,
    account: str,
    container: str,
    name: str,
    tags: dict[str, str],
    *,
    conditions: Conditions = NO_CONDITIONS,
) -> BlobProperties:
    """Replace a blob's tags, which changes neither its entity tag nor its time. Raises NotFound, PreconditionFailed."""
    return await _update(
        store,
        account,
        container,
        name,
        lambda old: {"tags": tags, "etag": old.etag, "modified_at": old.modified_at},
        conditions,
    )


async def _update(
    store: BlobStore,
    account: str,
    container: str,
    name: str,
    change: Callable[[BlobProperties], dict[str, Any]],
    conditions: Conditions,
) -> BlobProperties:
    check_blob_name(name)
    now = store.clock()

    def write(connection: sa.Connection) -> BlobProperties:
        old = index.get_blob(connection, account, container, name, lock=True)
        conditions.check_write(old)
        values = {"etag": index.new_etag(), "modified_at": now, **change(old)}
        connection.execute(blobs.update().where(blobs.c.content_id == old.content_id).values(**values))
        return msgspec.structs.replace(old, **values)

    return await store.write(write)


async def copy(
    store: BlobStore,
    source: tuple[str, str, str],
    target: tuple[str, str, str],
    *,
    metadata: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    headers: BlobHeaders | None = None,
    source_conditions: Conditions = NO_CONDITIONS,
    conditions: Conditions = NO_CONDITIONS,
) -> BlobProperties:
    """Copy a blob (account, container, name) to another at once: both share the objects.

    What is not given is copied too. Raises NotFound, Conflict, PreconditionFailed, NotModified.
    """
    check_blob_name(source[2])
    check_blob_name(target[2])
    now = store.clock()
    content_id = index.new_content_id()

    def write(connection: sa.Connection) -> BlobProperties:
        old = index.get_blob(connection, *source)
        source_conditions.check_read(old)
        index.share_segments(connection, old.content_id, 0, old.size, content_id, 0)
        blocks = index.committed_blocks(connection, old.content_id)
        if blocks:
            connection.execute(
                blob_block_lists.insert().values(
                    content_id=content_id, blocks=[[block_id, size] for block_id, size in blocks]
                )
            )
        new = index.Replacement(
            kind=old.kind,
            content_id=content_id,
            size=old.size,
            headers=headers
            or BlobHeaders(**{field: getattr(old, field) for field in BlobHeaders.__struct_fields__}),
            metadata=old.metadata if metadata is None else metadata,
            tags=tags or {},
        )
        return index.replace_blob(connection, *target, new, conditions, now)

    return await store.write(write)


async def set_container_metadata(
    store: BlobStore, account: str, container: str, metadata: dict[str, str]
) -> ContainerProperties:
    """Replace a container's metadata. Raises NotFound."""
    now = store.clock()

    def write(connection: sa.Connection) -> ContainerProperties:
        connection.execute(
            blob_containers.update()
            .where(blob_containers.c.account == account, blob_containers.c.name == container)
            .values(metadata=metadata, etag=index.new_etag(), modified_at=now)
        )
        found = index.find_container(connection, account, container)
        if found is None:
            raise no_container(container)
        return found

    return await store.write(write)
