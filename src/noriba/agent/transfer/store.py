"""Where data lives, seen alike whatever it is: the seam between transfers and the kinds of storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from noriba.agent.protocol import Location
from noriba.agent.transfer.blob import Blob, BlobClient, ConnectionPool, Readable
from noriba.agent.transfer.errors import Unsupported


class Store(Protocol):
    """A container of named blobs. Errors are ``TransferError`` or ``Cancelled``."""

    uri: str

    def list(self, prefix: str) -> Iterator[Blob]: ...

    def head(self, name: str) -> Blob | None: ...

    def read_range(self, blob: Blob, offset: int, length: int, descriptor: int) -> None: ...

    def put(self, name: str, body: bytes, metadata: dict[str, str] | None = None) -> None: ...

    def put_file(self, name: str, file: Readable, size: int) -> None: ...

    def delete(self, name: str) -> None: ...


def open_store(
    location: Location,
    pool: ConnectionPool,
    renew: Callable[[], Location] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Store:
    """The store that holds ``location``. Raises ``Unsupported`` for web addresses: they can not be listed."""
    if location.kind == "blob":
        return BlobClient(location, pool, renew, cancelled)
    if location.kind == "object_store":
        from noriba.agent.transfer.object_store import ObjectStoreClient  # heavy, and seldom needed

        return ObjectStoreClient(location, cancelled)
    raise Unsupported(
        f"{location.uri or location.url}: a web address names one file and can neither be listed nor written; "
        "use type uri_file for it, or a datastore path"
    )
