"""The log files of a task on their way to the control plane: by offset, so that none is lost or doubled.

The user's processes write straight to the files. What the control plane holds is given back to the disk piece by
piece (the file keeps its size), so a log can be longer than the disk.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from noriba.agent import linux
from noriba.agent.protocol import LogChunk

_PUNCH_BYTES = 4 << 20
_PAGE = 4096


@dataclass
class _File:
    acked: int | None
    """Bytes that the control plane holds; None = to be asked for."""
    punched: int = 0


class TaskLogs:
    """All regular files below ``root``; their relative paths are their names. Used by the reporter's thread."""

    def __init__(self, task_id: str, root: Path, *, resumed: bool) -> None:
        self.task_id = task_id
        self.root = root
        self._resumed = resumed
        self._files: dict[str, _File] = {}

    def chunks(self, budget_bytes: int) -> tuple[list[LogChunk], bool]:
        """What is to be sent next, at most ``budget_bytes``; and whether that is all there is."""
        found: list[LogChunk] = []
        complete = True
        for name, size in self._scan():
            file = self._files.get(name)
            if file is None:
                # After a restart the control plane knows how far we were: an empty chunk asks for it. It also makes
                # the file there, so that a job that prints nothing has an empty log rather than none.
                file = self._files[name] = _File(acked=None if self._resumed or size == 0 else 0)
            if file.acked is None:
                found.append(LogChunk(task_id=self.task_id, file=name, offset=0, data=b""))
                complete = complete and size == 0
                continue
            if size <= file.acked:
                continue
            wanted = size - file.acked
            data = self._read(name, file.acked, min(wanted, budget_bytes)) if budget_bytes > 0 else b""
            budget_bytes -= len(data)
            complete = complete and len(data) == wanted
            if data:
                found.append(LogChunk(task_id=self.task_id, file=name, offset=file.acked, data=data))
        return found, complete

    def acknowledge(self, name: str, size: int) -> bool:
        """The control plane holds ``size`` bytes of a file; False if that was known."""
        file = self._files.get(name)
        if file is None or file.acked == size:
            return False
        file.acked = size
        if size - file.punched >= _PUNCH_BYTES:
            self._punch(name, file)
        return True

    def _scan(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        pending = [("", str(self.root))]
        while pending:
            prefix, folder = pending.pop()
            try:
                entries = list(os.scandir(folder))
            except FileNotFoundError:
                continue
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{prefix}{entry.name}/", entry.path))
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((prefix + entry.name, entry.stat(follow_symlinks=False).st_size))
        # System logs first: they are small, and what is said there came first.
        found.sort(key=lambda item: (not item[0].startswith("system_logs/"), item[0]))
        return found

    def _read(self, name: str, offset: int, length: int) -> bytes:
        descriptor = self._open(name, os.O_RDONLY)
        if descriptor is None:
            return b""
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    def _open(self, name: str, flags: int) -> int | None:
        """Open a log; None if the user's code has put something else in its place."""
        try:
            descriptor = os.open(self.root / name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return descriptor

    def _punch(self, name: str, file: _File) -> None:
        assert file.acked is not None
        end = file.acked // _PAGE * _PAGE
        descriptor = self._open(name, os.O_RDWR)
        if descriptor is None:
            return
        try:
            linux.punch_hole(descriptor, 0, end)
        except OSError:
            file.punched = 1 << 62  # this file system can not; the shim's guard still holds
        else:
            file.punched = end
        finally:
            os.close(descriptor)
