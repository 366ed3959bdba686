"""Bring a blob or everything below a prefix to the node, in parallel, through the cache."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from noriba.agent.folder import is_disk_full
from noriba.agent.transfer.blob import Blob
from noriba.agent.transfer.cache import Cache, copy_file, link_or_copy
from noriba.agent.transfer.errors import AccessDenied, NotFound, Unsupported
from noriba.agent.transfer.store import Store

Delivery = Literal["shared", "private", "code"]
"""``shared``: read-only, may share its content with others; ``private``: a writable copy; ``code``: that, executable."""

_RANGE_BYTES = 16 << 20
_THREADS = 6
_SLACK_BYTES = 1 << 20
_CACHE_PRIVATE_BYTES = 64 << 20
_MODES = {"shared": 0o444, "private": 0o644, "code": 0o755}


@dataclass
class Fetched:
    """What was brought."""

    files: int = 0
    size_bytes: int = 0
    cached_files: int = 0
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Item:
    blob: Blob
    target: Path


def safe_relative(name: str) -> PurePosixPath:
    """A blob's name as a path that stays below its folder. Raises ``Unsupported`` where that is not possible."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in name:
        raise Unsupported(f"the blob name {name!r} can not be a file on the node; rename it")
    return PurePosixPath(*parts)


class Downloader:
    """``share_links``: shared files may be hard links into the cache (else they are copies)."""

    def __init__(self, cache: Cache, *, share_links: bool) -> None:
        self._cache = cache
        self.share_links = share_links

    def folder(self, store: Store, store_url: str, prefix: str, target: Path, delivery: Delivery) -> Fetched:
        """Everything below ``prefix`` (a folder) into ``target``, which is made.

        Raises ``NotFound`` if there is nothing.
        """
        below = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        blobs = list(store.list(below))
        if not blobs:
            self._explain_no_folder(store, below)
        target.mkdir(parents=True, exist_ok=True)
        items = []
        folders = {target}
        for blob in blobs:
            name = blob.name[len(below) :]
            if not name.strip("/"):
                continue
            path = target / safe_relative(name)
            if blob.is_folder or (name.endswith("/") and blob.size == 0):
                folders.add(path)
            else:
                items.append(_Item(blob, path))
                folders.add(path.parent)
        items = _without_folder_stubs(items, folders)
        for folder in sorted(folders):
            _make_folder(folder, target)
        return self._fetch(store, store_url, items, delivery)

    def file(self, store: Store, store_url: str, name: str, target: Path, delivery: Delivery) -> Fetched:
        """One blob to the path ``target``. Raises ``NotFound``."""
        blob = store.head(name) if name and not name.endswith("/") else None
        if blob is None or blob.is_folder:
            # A credential for one file may not list; then all we know is that there is no such file.
            with contextlib.suppress(AccessDenied):
                if next(iter(store.list(name.rstrip("/") + "/")), None) is not None:
                    raise NotFound(f"{store.uri} is a folder, not a file; use type uri_folder for it")
            raise NotFound(f"{store.uri} does not exist")
        target.parent.mkdir(parents=True, exist_ok=True)
        return self._fetch(store, store_url, [_Item(blob, target)], delivery)

    def _explain_no_folder(self, store: Store, below: str) -> None:
        """Return if the folder is there but empty; otherwise raise what is wrong."""
        blob = store.head(below.rstrip("/")) if below else None
        if blob is None:
            raise NotFound(f"{store.uri} does not exist, or is an empty folder")
        if not blob.is_folder:
            raise NotFound(f"{store.uri} is a file, not a folder; use type uri_file for it")

    def _fetch(self, store: Store, store_url: str, items: list[_Item], delivery: Delivery) -> Fetched:
        result = Fetched()
        work: list[_Fetch] = []
        for item in items:
            result.files += 1
            result.size_bytes += item.blob.size
            cached = self._cache.path(store_url, item.blob)
            if cached is not None and self._cache.has(cached, item.blob):
                result.cached_files += 1
                self._deliver(cached, item, delivery)
                continue
            keep = delivery == "shared" or item.blob.size <= _CACHE_PRIVATE_BYTES
            work.append(_Fetch(self, store, item, cached if keep else None, delivery))
        for fetch in work:
            fetch.threads = max(1, _THREADS // len(work))
        run_parallel(work, _THREADS)
        return result

    def _deliver(self, cached: Path, item: _Item, delivery: Delivery) -> None:
        item.target.unlink(missing_ok=True)
        if delivery == "shared" and self.share_links:
            link_or_copy(cached, item.target)
        else:
            copy_file(cached, item.target, _MODES[delivery])


class _Fetch:
    """The fetching of one file, as a piece of work. ``threads`` of it read at the same time."""

    threads = 1

    def __init__(
        self, owner: Downloader, store: Store, item: _Item, cached: Path | None, delivery: Delivery
    ) -> None:
        self._owner, self._store, self._item = owner, store, item
        self._cached, self._delivery = cached, delivery

    def __call__(self) -> None:
        try:
            self._fetch()
        except OSError as error:
            # Files of earlier tasks give way to this one's.
            if not is_disk_full(error) or not self._owner._cache.trim(self._item.blob.size + _SLACK_BYTES):
                raise
            self._fetch()

    def _fetch(self) -> None:
        blob = self._item.blob
        if self._cached is not None:
            self._owner._cache.add(self._cached, blob, self._fill)
            self._owner._deliver(self._cached, self._item, self._delivery)
            return
        part = self._item.target.with_name(self._item.target.name + ".noriba-part")
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            self._fill(descriptor)
            os.fchmod(descriptor, _MODES[self._delivery])
        except BaseException:
            os.unlink(part)
            raise
        finally:
            os.close(descriptor)
        os.rename(part, self._item.target)

    def _fill(self, descriptor: int) -> None:
        blob = self._item.blob
        if blob.size == 0:
            return
        os.posix_fallocate(descriptor, 0, blob.size)  # a disk that is too small is found out now
        ranges = [
            (offset, min(_RANGE_BYTES, blob.size - offset)) for offset in range(0, blob.size, _RANGE_BYTES)
        ]
        run_parallel(
            [partial(self._store.read_range, blob, offset, length, descriptor) for offset, length in ranges],
            self.threads,
        )


def run_parallel(work: Iterable[Callable[[], object]], threads: int) -> None:
    """Do all pieces of work; the first error is raised, after what had begun is done."""
    pieces = list(work)
    if len(pieces) <= 1:
        for piece in pieces:
            piece()
        return
    from concurrent.futures import ThreadPoolExecutor  # not needed by tasks that fetch nothing

    with ThreadPoolExecutor(min(threads, len(pieces))) as pool:
        futures = [pool.submit(piece) for piece in pieces]
        try:
            for future in futures:
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def _without_folder_stubs(items: list[_Item], folders: set[Path]) -> list[_Item]:
    """Leave out empty blobs that only stand for a folder which other blobs lie in."""
    inner = {parent for folder in folders for parent in (folder, *folder.parents)}
    kept = []
    for item in items:
        if item.target not in inner:
            kept.append(item)
        elif item.blob.size:
            raise Unsupported(
                f"the blob {item.blob.name!r} is a file, but others lie below it as in a folder; rename one"
            )
    return kept


def _make_folder(folder: Path, top: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if top not in (folder, *folder.parents):
        raise Unsupported(f"{folder} lies outside of its input")


def make_read_only(folder: Path) -> None:
    """Take the write permission from the folders of an input (its files have none already)."""
    for path, _, _ in os.walk(folder, topdown=False):
        os.chmod(path, 0o555)
