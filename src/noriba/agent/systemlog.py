"""The lines by which the platform tells a job's owner what it did (``system_logs/lifecycler/node-0.log``)."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from noriba.agent.folder import is_disk_full

_WAITING_BYTES = 64 << 10


class SystemLog:
    """Appends timed lines; each is on its way as soon as it is written."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._lock = threading.Lock()
        self._waiting = b""
        """What did not fit on the disk; it is written with the next line."""

    def __call__(self, message: str, at: float | None = None) -> None:
        line = f"{utc(time.time() if at is None else at)}  {message}\n".encode("utf-8", "replace")
        with self._lock:
            if self._file < 0:
                return
            self._waiting += line
            try:
                self._waiting = self._waiting[os.write(self._file, self._waiting) :]
            except OSError as error:
                if not is_disk_full(error):
                    raise
                self._waiting = self._waiting[-_WAITING_BYTES:]

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1


def utc(at: float) -> str:
    """``2026-11-23T14:05:09.123Z``"""
    moment = time.gmtime(at)
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{int(at % 1 * 1000):03d}Z"
