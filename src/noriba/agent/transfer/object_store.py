"""Object stores that are no Azure blob endpoint with a SAS (``s3://``, ``gs://``, ``az://``), through obstore."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from noriba.agent.protocol import Location
from noriba.agent.transfer.blob import Blob, Readable, write_at
from noriba.agent.transfer.errors import AccessDenied, Cancelled, NotFound, TransferError, Unavailable

_READ_BYTES = 4 << 20


class ObjectStoreClient:
    """The bucket of an object-store URL; names are relative to the bucket."""

    def __init__(self, location: Location, cancelled: Callable[[], bool]) -> None:
        self.uri = location.uri or location.url
        self._cancelled = cancelled
        parts = urlsplit(location.url)
        root = f"{parts.scheme}://{parts.netloc}"
        options: Any = dict(location.options)
        if parts.scheme == "file":
            root, options = location.url, None
        try:
            self._store = from_url(root, config=options or None)
        except (BaseError, ValueError) as error:
            raise TransferError(f"{self.uri}: this object store can not be opened: {error}") from error

    def list(self, prefix: str) -> Iterator[Blob]:
        # Object stores list whole path segments: what lies beside them under a longer name is left out here.
        folder = prefix.rpartition("/")[0]
        try:
            for batch in obstore.list(self._store, prefix=folder or None):
                self._check()
                for entry in batch:
                    if entry["path"].startswith(prefix):
                        yield _blob(entry)
        except BaseError as error:
            raise self._said(error, "list") from error

    def head(self, name: str) -> Blob | None:
        try:
            return _blob(obstore.head(self._store, name))
        except (NotFoundError, FileNotFoundError):
            return None
        except BaseError as error:
            raise self._said(error, "look at") from error

    def read_range(self, blob: Blob, offset: int, length: int, descriptor: int) -> None:
        end = offset + length
        while offset < end:
            self._check()
            part = min(_READ_BYTES, end - offset)
            try:
                data = obstore.get_range(self._store, blob.name, start=offset, length=part)
            except (BaseError, FileNotFoundError) as error:
                raise self._said(error, "read") from error
            write_at(descriptor, bytes(data), offset)
            offset += part

    def put(self, name: str, body: bytes, metadata: dict[str, str] | None = None) -> None:
        try:
            obstore.put(self._store, name, body)
        except BaseError as error:
            raise self._said(error, "write") from error

    def put_file(self, name: str, file: Readable, size: int) -> None:
        try:
            obstore.put(self._store, name, cast("BinaryIO", file))
        except BaseError as error:
            raise self._said(error, "write") from error

    def delete(self, name: str) -> None:
        try:
            obstore.delete(self._store, name)
        except (NotFoundError, FileNotFoundError):
            return
        except BaseError as error:
            raise self._said(error, "delete") from error

    def _check(self) -> None:
        if self._cancelled():
            raise Cancelled

    def _said(self, error: Exception, verb: str) -> TransferError:
        if isinstance(error, (NotFoundError, FileNotFoundError)):
            return NotFound(f"{self.uri} does not exist")
        if isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
            return AccessDenied(
                f"{self.uri}: not allowed to {verb} it; are the datastore's credentials right?"
            )
        return Unavailable(f"{self.uri}: could not {verb} it: {str(error).splitlines()[0]}")


def _blob(entry: Any) -> Blob:
    return Blob(
        name=entry["path"],
        size=int(entry["size"]),
        etag=(entry.get("e_tag") or "").strip('"'),
        modified=entry["last_modified"].timestamp(),
        is_folder=False,
    )
