"""The object store that holds bytes under opaque keys: a folder, S3, Azure, GCS or memory, chosen by URL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, MemoryStore

from noriba.models.errors import NoribaError, Unavailable

SHARDS = 256
_IO_THREADS = 8
_MOST_PARTS = min(1024, os.sysconf("SC_IOV_MAX"))


class ObjectMissing(Exception):
    """An object that should exist does not (it may just have been merged into another)."""


class Objects(Protocol):
    """Immutable objects under opaque keys. They are durable after ``sync`` of one key of their content."""

    read_bytes: int
    """How much to read at a time."""

    async def put(self, key: str, parts: Sequence[bytes]) -> None:
        """Store the concatenation of ``parts``. Raises Unavailable."""

    async def sync(self, key: str) -> None:
        """Make durable what was put under the keys of the content that ``key`` is of. Raises Unavailable."""

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

    # Each read is a request of its own.
    read_bytes = 4 * 1024 * 1024

    def __init__(self, store: Any) -> None:
        self._store = store

    async def put(self, key: str, parts: Sequence[bytes]) -> None:
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        try:
            await obstore.put_async(self._store, key, whole, use_multipart=False)
        except obstore.exceptions.BaseError as error:
            raise _unavailable(error) from error

    async def sync(self, key: str) -> None:
        """Nothing to do: ``put`` is durable."""

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
    """A folder of this machine.

    Objects are read through obstore but written here: its writes are not synced to the disk, and it wants the parts
    joined. A file cut off by a crash is no harm, as nothing refers to it.
    """

    read_bytes = 1024 * 1024

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # All folders are made now, so that an upload has one folder only to sync.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if sum(1 for entry in os.scandir(folder) if entry.is_dir()) < SHARDS:
            for number in range(SHARDS):
                (folder / f"{number:02x}").mkdir(exist_ok=True, mode=0o700)
            _sync(folder)
            _sync(folder.parent)
        self._store = LocalStore(prefix=folder)
        self._threads = ThreadPoolExecutor(_IO_THREADS, thread_name_prefix="blob-io")

    async def put(self, key: str, parts: Sequence[bytes]) -> None:
        await self._in_thread(_write, self._folder / key, parts)

    async def sync(self, key: str) -> None:
        await self._in_thread(_sync, (self._folder / key).parent)

    async def _in_thread(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        except OSError as error:
            raise _unavailable(error) from error

    async def get(self, key: str, start: int, end: int) -> memoryview:
        try:
            return memoryview(await obstore.get_range_async(self._store, key, start=start, end=end))
        except FileNotFoundError as error:
            raise ObjectMissing(key) from error
        except obstore.exceptions.BaseError as error:
            raise _unavailable(error) from error

    async def delete(self, keys: Sequence[str]) -> None:
        await self._in_thread(_delete, [self._folder / key for key in keys])

    def close(self) -> None:
        self._threads.shutdown(wait=True)


def _write(path: Path, parts: Sequence[bytes]) -> None:
    # An upload's keys are its own, but one that failed to write may write again.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        waiting = [memoryview(part) for part in parts if part]
        while waiting:
            written = os.writev(descriptor, waiting[:_MOST_PARTS])
            while waiting and written >= len(waiting[0]):
                written -= len(waiting.pop(0))
            if waiting:
                waiting[0] = waiting[0][written:]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


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
