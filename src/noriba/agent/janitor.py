"""Removes folders without keeping anybody waiting: they are renamed out of the way and deleted by a thread."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from noriba.agent.folder import remove_tree

_log = logging.getLogger(__name__)


class Janitor:
    """``trash`` is on the same file system as what is removed. What an earlier life left there goes first."""

    def __init__(self, trash: Path) -> None:
        self._trash = trash
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._count = 0
        trash.mkdir(exist_ok=True, mode=0o700)
        if any(trash.iterdir()):
            self._work()

    def remove(self, folder: Path) -> None:
        """Have a folder removed; its name is free when this returns."""
        self._count += 1
        os.rename(folder, self._trash / f"{os.getpid()}-{self._count}")
        self._work()

    def _work(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                left = list(self._trash.iterdir())
                if not left:
                    self._thread = None
                    return
            for folder in left:
                try:
                    remove_tree(folder)
                except OSError as error:
                    _log.warning("%s can not be removed: %s", folder, error)
                    with self._lock:
                        self._thread = None
                    return
