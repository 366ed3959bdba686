"""The object store that holds bytes under opaque keys: a folder, S3, Azure, GCS or memory, chosen by URL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, MemoryStore

from noriba.models.errors import NoribaError, Unavailable

SHARDS = 256
_IO_THREADS = 8


class ObjectMissing(Exception):
    """An object that should exist does not (it may just have been merged into another)."""


class Objects(Protocol):
    """Immutable objects under opaque keys. ``put`` returns once the object is durable."""

    async def put(self, key: str, parts: Sequence[bytes]) -> None:
        """Store the concatenation of ``parts``. Raises Unavailable."""

    async def get(self, key: str, start: int, end: int) -> memoryview:
        """Bytes ``start`` to ``end``. Raises ObjectMissing, Unavailable."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete what exists of ``keys``. Raises Unavailable."""

    def close(self) -> None:
        """Let threads go."""


def object_key(content_id: int, number: int) -> str:
    """The key of a content's object: spread over ``SHARDS`` folders, no part of a blob's name in it."""
    return f"{content_id % SHARDS:02x}/{content_id:016x}-{number:x}"


def open_objects(url: str, options: dict[str, str]) -> Objects:
    """The object store at ``url``: a path, ``file://``, ``memory://``, ``s3://``, ``az://``, ``gs://``.

    Raises NoribaError with one line when the URL or an option is not good.
    """
    scheme = urlsplit(url).scheme
    if scheme == "" or len(scheme) == 1 or scheme == "file":
        return FolderObjects(Path(unquote(urlsplit(url).path) if scheme == "file" else url))
    try:
        if scheme == "memory":
            return RemoteObjects(MemoryStore())
        return RemoteObjects(obstore.store.from_url(url, **_typed(options)))
    except (obstore.exceptions.BaseError, ValueError, TypeError) as error:
        raise NoribaError(
            f"The object store {url} can not be opened: {str(error).splitlines()[0]}. "
            "Check storage.url and storage.options.",
            code="BadStorageUrl",
        ) from error


def _typed(options: dict[str, str]) -> dict[str, Any]:
    """Settings have strings only; obstore's client options are nested and some need numbers or flags."""
    plain: dict[str, Any] = {}
    client: dict[str, Any] = {}
    for name, value in options.items():
        if name.startswith("client."):
            client[name.removeprefix("client.")] = {"true": True, "false": False}.get(value.lower(), value)
        else:
            plain[name] = value
    if client:
        plain["client_options"] = client
    return plain


class RemoteObjects:
    """Any store of obstore whose ``put`` is durable when it returns."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def put(self, key: str, parts: Sequence[bytes]) -> None:
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        try:
            await obstore.put_async(self._store, key, whole, use_multipart=False)
        except obstore.exceptions.BaseError as error:
            raise _unavailable(error) from error

    async def get(self, key: str, start: int, end: int) -> memoryview:
        try:
            return memoryview(await obstore.get_range_async(self._store, key, start=start, end=end))
        except FileNotFoundError as error:
            raise ObjectMissing(key) from error
        except obstore.exceptions.BaseError as error:
            raise _unavailable(error) from error

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                await obstore.delete_async(self._store, key)
            except FileNotFoundError:
                continue
            except obstore.exceptions.BaseError as error:
                raise _unavailable(error) from error

    def close(self) -> None:
        pass


class FolderObjects:
    """A folder of this machine. An object is synced to disk, with its folder, before ``put`` returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # All folders are made now, so that a put syncs one folder only.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if sum(1 for entry in os.scandir(folder) if entry.is_dir()) < SHARDS:
            for number in range(SHARDS):
                (folder / f"{number:02x}").mkdir(exist_ok=True, mode=0o700)
            _sync(folder)
            _sync(folder.parent)
        self._store = LocalStore(prefix=folder)
        self._threads = ThreadPoolExecutor(_IO_THREADS, thread_name_prefix="blob-io")

    async def put(self, key: str, parts: Sequence[bytes]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._put, key, parts)

    def _put(self, key: str, parts: Sequence[bytes]) -> None:
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        path = self._folder / key
        try:
            obstore.put(self._store, key, whole, use_multipart=False)
            _sync(path)
            _sync(path.parent)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def get(self, key: str, start: int, end: int) -> memoryview:
        try:
            return memoryview(await obstore.get_range_async(self._store, key, start=start, end=end))
        except FileNotFoundError as error:
            raise ObjectMissing(key) from error
        except obstore.exceptions.BaseError as error:
            raise _unavailable(error) from error

    async def delete(self, keys: Sequence[str]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._delete, list(keys))

    def _delete(self, keys: list[str]) -> None:
        try:
            for key in keys:
                (self._folder / key).unlink(missing_ok=True)
                # What a put leaves when the process is killed in the middle of it.
                (self._folder / f"{key}#1").unlink(missing_ok=True)
        except OSError as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        self._threads.shutdown(wait=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(
        f"The object store does not answer: {str(error).splitlines()[0]}. Try again shortly.",
        code="ServerBusy",
    )
