"""One builder per environment across processes: file locks that the kernel releases with their holder."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from noriba.environments import errors
from noriba.environments.errors import EnvironmentBuildError


class KeyLock:
    """The lock of one key. ``fd`` may be inherited by programs: the lock lasts until all copies are closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def try_lock(self, shared: bool = False) -> bool:
        """Take the lock if nobody holds it; ``shared`` excludes only those who want it for themselves."""
        try:
            fcntl.flock(self.fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def wait(
        self, cancel: threading.Event | None, waiting: Callable[[float], None], every_s: float = 10.0
    ) -> float:
        """Take the lock for oneself, however long that takes; returns the seconds waited.

        ``waiting`` is called at once and then every ``every_s`` with the seconds so far. Raises
        ``EnvironmentBuildError`` (canceled) when ``cancel`` is set first.
        """
        start = time.monotonic()
        if self.try_lock():
            return 0.0
        waiting(0.0)
        told = start
        pause = 0.02
        stop = cancel or threading.Event()
        while not self.try_lock():
            # flock cannot be waited for together with an event, so it is asked again and again.
            if stop.wait(pause):
                raise EnvironmentBuildError(
                    errors.CANCELED, "the build was canceled while it waited for another one"
                )
            pause = min(pause * 1.5, 0.25)
            if time.monotonic() - told >= every_s:
                told = time.monotonic()
                waiting(told - start)
        return time.monotonic() - start

    def describe(self, **holder: object) -> None:
        """Write who holds the lock, for those who wait."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, json.dumps({"pid": os.getpid(), "since": time.time(), **holder}).encode(), 0)

    def holder(self) -> dict[str, object]:
        """Who said to hold the lock; empty where nobody did."""
        try:
            found = json.loads(os.pread(self.fd, 4096, 0) or b"{}")
        except ValueError:
            return {}  # being written just now
        return found if isinstance(found, dict) else {}

    def close(self) -> None:
        """Release."""
        os.close(self.fd)


@contextmanager
def key_lock(path: Path) -> Iterator[KeyLock]:
    """A ``KeyLock`` that is released at the end of the block."""
    lock = KeyLock(path)
    try:
        yield lock
    finally:
        lock.close()
