"""Keep a blob prefix the same as a local folder: again and again what changed, at the end everything.

An upload may be repeated; a file that is being written goes up as it is and again when it changed. What was
uploaded (or was there at the start) and then deleted by the job is deleted from the store, as on a mounted folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from pathlib import Path

from noriba.agent.transfer.download import run_parallel
from noriba.agent.transfer.errors import TransferError
from noriba.agent.transfer.store import Store

_THREADS = 4
_SETTLED_NS = 1_000_000_000

Stamp = tuple[int, int, int]
"""Size, modification time in ns, inode: a file with the same three is taken to be unchanged."""


@dataclass
class _Scan:
    files: dict[str, tuple[Path, Stamp]] = field(default_factory=dict)
    empty_folders: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)


@dataclass
class Stored:
    """What the store holds of the folder after an upload."""

    files: int = 0
    size_bytes: int = 0
    sent_files: int = 0
    sent_bytes: int = 0
    skipped: list[str] = field(default_factory=list)


class FolderUpload:
    """``root`` (a folder, or a file for a single blob) to the name or prefix ``prefix`` of a store.

    ``keep_empty_folders``: leave a mark for folders without files. ``open_store`` is called at the first need, so
    a folder in which nothing lies costs no connection.
    """

    def __init__(
        self,
        root: Path,
        prefix: str,
        open_store: Callable[[], Store],
        *,
        keep_empty_folders: bool,
    ) -> None:
        self.root = root
        self._prefix = prefix.rstrip("/")
        self._open_store = open_store
        self._keep_empty_folders = keep_empty_folders
        self._store: Store | None = None
        self._known: dict[str, Stamp] = {}
        self._folders: set[str] = set()
        self._ignored: dict[str, Stamp] = {}
        self._lock = threading.Lock()

    def take_as_stored(self) -> None:
        """What lies in the folder now is what the store holds."""
        for name, (_, stamp) in self._scan().files.items():
            self._known[name] = stamp

    def ignore_present(self) -> None:
        """Do not upload what lies in the folder now, unless it changes."""
        for name, (_, stamp) in self._scan().files.items():
            self._ignored[name] = stamp

    def run(self, *, final: bool) -> Stored:
        """Upload what changed since the last run.

        Unless it is the ``final`` one, files written to a moment ago and empty folders are left for the next run.
        Raises ``TransferError`` (no file is ever half visible), ``Cancelled``.
        """
        scan = self._scan()
        result = Stored(skipped=scan.skipped)
        newest_ns = None if final else time.time_ns() - _SETTLED_NS
        if not final:
            scan.empty_folders &= self._folders
        work: list[Callable[[], object]] = []
        for name, (path, stamp) in scan.files.items():
            if self._ignored.get(name) == stamp:
                continue
            if self._known.get(name) != stamp:
                if newest_ns is not None and stamp[1] > newest_ns:
                    continue
                work.append(partial(self._send, name, path, result))
            else:
                result.files += 1
                result.size_bytes += stamp[0]
        work += [partial(self._mark_folder, name) for name in scan.empty_folders - self._folders]
        for name in [name for name in self._known if name not in scan.files]:
            work.append(partial(self._forget, name))
        for name in self._folders - scan.empty_folders:
            work.append(partial(self._forget_folder, name))
        if work:
            run_parallel(work, _THREADS)
        return result

    def is_dirty(self) -> bool:
        """Whether ``run`` would have something to do."""
        scan = self._scan()
        fresh = {name: stamp for name, (_, stamp) in scan.files.items() if self._ignored.get(name) != stamp}
        return fresh != self._known or (self._keep_empty_folders and scan.empty_folders != self._folders)

    def _target(self, name: str) -> str:
        return "/".join(part for part in (self._prefix, name) if part)

    def _open(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = self._open_store()
            return self._store

    def _send(self, name: str, path: Path, result: Stored) -> None:
        for attempt in range(3):
            descriptor = open_inside(path, self.root)
            if descriptor is None:
                return  # gone, or replaced by something that is no file of ours
            with open(descriptor, "rb", buffering=0) as file:
                stamp = _stamp(os.fstat(descriptor))
                try:
                    self._open().put_file(self._target(name), _Exact(file), stamp[0])
                except TransferError as error:
                    if attempt < 2 and os.fstat(descriptor).st_size < stamp[0]:
                        continue  # it was cut short while we read it
                    if "became shorter" in str(error):
                        return  # it keeps changing: next time
                    raise
            break
        with self._lock:
            self._known[name] = stamp
            self._ignored.pop(name, None)
            result.files += 1
            result.size_bytes += stamp[0]
            result.sent_files += 1
            result.sent_bytes += stamp[0]

    def _mark_folder(self, name: str) -> None:
        self._open().put(self._target(name), b"", {"hdi_isfolder": "true"})
        with self._lock:
            self._folders.add(name)

    def _forget(self, name: str) -> None:
        self._open().delete(self._target(name))
        with self._lock:
            self._known.pop(name, None)

    def _forget_folder(self, name: str) -> None:
        if self._target(name) not in {self._target(known) for known in self._known}:
            self._open().delete(self._target(name))
        with self._lock:
            self._folders.discard(name)

    def _scan(self) -> _Scan:
        scan = _Scan()
        try:
            top = os.stat(self.root, follow_symlinks=False)
        except FileNotFoundError:
            return scan
        if stat.S_ISREG(top.st_mode):
            scan.files[""] = (self.root, _stamp(top))
        elif stat.S_ISDIR(top.st_mode):
            self._scan_folder(self.root, "", scan, {os.path.realpath(self.root)})
        return scan

    def _scan_folder(self, folder: Path, name: str, scan: _Scan, above: set[str]) -> None:
        empty = True
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            inner = f"{name}/{entry.name}" if name else entry.name
            path = Path(entry.path)
            with contextlib.suppress(FileNotFoundError):
                real = os.path.realpath(path)
                if entry.is_symlink() and not _is_inside(real, self.root):
                    scan.skipped.append(inner)
                    continue
                kind = entry.stat().st_mode
                if stat.S_ISDIR(kind):
                    if real in above:
                        scan.skipped.append(inner)
                        continue
                    empty = False
                    self._scan_folder(path, inner, scan, above | {real})
                elif stat.S_ISREG(kind):
                    empty = False
                    scan.files[inner] = (path, _stamp(entry.stat()))
                else:
                    scan.skipped.append(inner)
        if empty and self._keep_empty_folders:
            scan.empty_folders.add(name)


class _Exact:
    """A raw file whose ``read(n)`` gives ``n`` bytes unless the file ends."""

    def __init__(self, file: FileIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self._file.read()
        parts = []
        while size > 0 and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def open_inside(path: Path, root: Path) -> int | None:
    """Open a file for reading if it is a regular file that really lies below ``root``; None otherwise.

    What was opened is looked at, not the path: a link that changes meanwhile gains nothing.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return None
        if error.errno in (errno.ENXIO, errno.ELOOP):
            return None
        raise TransferError(f"{path.name}: can not be read for the upload: {error.strerror}") from error
    real = os.readlink(f"/proc/self/fd/{descriptor}")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not _is_inside(real, root):
        os.close(descriptor)
        return None
    return descriptor


def _is_inside(real: str, root: Path) -> bool:
    top = os.path.realpath(root)
    return real == top or real.startswith(top + os.sep)


def _stamp(entry: os.stat_result) -> Stamp:
    return entry.st_size, entry.st_mtime_ns, entry.st_ino
