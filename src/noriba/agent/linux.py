"""The few kernel calls Python has no name for, through ``ctypes``.

Everything here raises ``OSError`` with the kernel's errno. The library handle is opened at import, so that a
freshly forked process can call without allocating.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

CLONE_NEWNS = 0x00020000
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2

_IN_MODIFY = 0x2
_IN_CREATE = 0x100
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = os.O_CLOEXEC

CAP_SYS_ADMIN = 21


def _check(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
    return result


def set_child_subreaper() -> None:
    """Make orphaned descendants this process's children, so that none can slip away by forking twice."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def set_parent_death_signal(signal_number: int) -> None:
    """Have the kernel send ``signal_number`` to this process when its parent dies."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def set_process_name(name: str) -> None:
    """Name this process in ``ps`` (at most 15 bytes are kept)."""
    _check(_libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0), "prctl")


def unshare_mounts() -> None:
    """Give this process mounts of its own; later mounts are seen by it and its children alone."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def mount(source: str, target: str, filesystem: str, flags: int, options: str = "") -> None:
    """``mount(2)``."""
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            filesystem.encode() or None,
            ctypes.c_ulong(flags),
            options.encode() or None,
        ),
        target,
    )


def mount_read_only(path: str) -> None:
    """Make ``path`` (file or folder) read-only for this process's mounts, even for root."""
    mount(path, path, "", MS_BIND)
    mount("none", path, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Give the disk back bytes ``offset .. offset + length`` of a file; its size stays, reading gives zeros."""
    _check(
        _libc.fallocate(
            descriptor,
            _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE,
            ctypes.c_int64(offset),
            ctypes.c_int64(length),
        ),
        "fallocate",
    )


def inotify_open() -> int:
    """A non-blocking inotify descriptor. Raises ``OSError`` (EMFILE) when the user has none left."""
    return _check(_libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC), "inotify_init1")


def inotify_watch_writes(descriptor: int, path: Path) -> int:
    """Watch a file (or the files directly in a folder) for writes."""
    return _check(
        _libc.inotify_add_watch(descriptor, os.fsencode(path), ctypes.c_uint32(_IN_MODIFY | _IN_CREATE)),
        str(path),
    )


def inotify_drain(descriptor: int) -> int:
    """Forget all pending notices; returns how many bytes of them there were."""
    total = 0
    while True:
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return total
        total += len(data)


def has_capability(number: int) -> bool:
    """Whether this process holds a Linux capability in effect."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> number & 1)
    return False


def close_except(keep: set[int]) -> None:
    """Close every descriptor above standard error but those in ``keep``."""
    low = 3
    for descriptor in sorted(keep):
        if descriptor >= low:
            os.closerange(low, descriptor)
            low = descriptor + 1
    os.closerange(low, 1 << 16)
