"""Files that were fetched before, kept read-only on the node's disk and shared by all tasks and agents there.

A file's key is made of where it lives and its ETag, so that other content has another key. Its modification time
is the blob's: a file whose size, time or mode is not as it was put down has been tampered with and is fetched anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from noriba.agent.transfer.blob import Blob


class Cache:
    """A cache below ``root``; ``keep_free`` is the share of the disk that trimming leaves free."""

    def __init__(self, root: Path, keep_free: float = 0.1) -> None:
        self.root = root
        self.keep_free = keep_free
        self._files = root / "files"
        self._files.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, store_url: str, blob: Blob) -> Path | None:
        """Where a blob's content would be; None if it has no ETag to know it by."""
        if not blob.etag:
            return None
        key = sha256(f"{store_url}\0{blob.name}\0{blob.etag}\0{blob.size}".encode()).hexdigest()
        return self._files / key[:2] / key[2:]

    def has(self, path: Path, blob: Blob) -> bool:
        """Whether the content is there, unchanged. What was changed is removed."""
        try:
            found = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if (
            found.st_size == blob.size
            and found.st_mtime_ns == _time_ns(blob)
            and stat.S_IMODE(found.st_mode) == 0o444
        ):
            os.utime(path, ns=(_now_ns(), found.st_mtime_ns))
            return True
        path.unlink(missing_ok=True)
        return False

    def add(self, path: Path, blob: Blob, fill: Callable[[int], None]) -> None:
        """Have ``fill`` write the content to a descriptor, then put it at ``path``, whole or not at all."""
        path.parent.mkdir(exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            try:
                fill(descriptor)
                os.fchmod(descriptor, 0o444)
                os.utime(descriptor, ns=(_now_ns(), _time_ns(blob)))
            finally:
                os.close(descriptor)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def trim(self, room_bytes: int = 0) -> int:
        """Remove files that no task uses, longest unused first, until enough of the disk is free.

        ``room_bytes`` is how much someone needs at once. Returns the bytes given back.
        """
        disk = os.statvfs(self.root)
        share = int(disk.f_blocks * disk.f_frsize * self.keep_free)
        wanted = max(share, room_bytes) - disk.f_bavail * disk.f_frsize
        if wanted <= 0:
            return 0
        found = []
        for folder, _, names in os.walk(self._files):
            for name in names:
                path = os.path.join(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    entry = os.stat(path)
                    if entry.st_nlink == 1 and not name.startswith(".new-"):
                        found.append((entry.st_atime_ns, entry.st_blocks * 512, path))
        freed = 0
        for _, size, path in sorted(found):
            if freed >= wanted:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                freed += size
        return freed


def _time_ns(blob: Blob) -> int:
    return int(blob.modified) * 1_000_000_000


def _now_ns() -> int:
    import time

    return time.time_ns()


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the disk does not allow that."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
            raise
        copy_file(source, target, 0o444)


def copy_file(source: Path, target: Path, mode: int) -> None:
    """A copy of its own; shares blocks with the source where the file system can (reflink)."""
    with open(source, "rb") as read:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as write:
            os.fchmod(descriptor, mode)
            size = os.fstat(read.fileno()).st_size
            copied = 0
            while copied < size:
                try:
                    count = os.copy_file_range(read.fileno(), descriptor, size - copied)
                except OSError as error:
                    if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                        raise
                    read.seek(copied)
                    write.seek(copied)
                    shutil.copyfileobj(read, write, 1 << 20)
                    return
                if count == 0:
                    return
                copied += count
