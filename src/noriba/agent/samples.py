"""What a task uses, sampled every few seconds (product.md R5)."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from noriba.agent import processes
from noriba.agent.cgroups import TaskCgroup
from noriba.agent.gpus import Gpus
from noriba.agent.protocol import Sample

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_DISK_EVERY_S = 30.0
_DISK_ENTRIES = 50_000


@dataclass
class _Totals:
    """Sums over processes, those that ended since included as last seen."""

    cpu_s: float = 0.0
    read: int = 0
    written: int = 0


@dataclass
class Sampler:
    """Samples of one task. ``shim_pid`` is the root of its processes, ``folder`` what counts as its disk use.

    By control group where there is one, otherwise by walking the processes. The network is counted for the whole
    machine: the kernel does not tell whose bytes are whose without a network of their own.
    """

    group: TaskCgroup | None
    shim_pid: int
    folder: Path
    gpus: Gpus | None = None
    _last_at: float = 0.0
    _last_cpu_s: float = 0.0
    _per_process: dict[tuple[int, int], _Totals] = field(default_factory=dict)
    _network_start: tuple[int, int] = (0, 0)
    _disk_at: float = -_DISK_EVERY_S
    _disk_used: int = 0

    def __post_init__(self) -> None:
        self._network_start = network_bytes()
        self._last_at = time.monotonic()
        self._last_cpu_s = (self.group.cpu_s() if self.group else None) or 0.0

    def since_start(self, started_at: float) -> None:
        """Let the first sample tell of the time since the task's start (seconds since the epoch)."""
        self._last_at = time.monotonic() - max(0.0, time.time() - started_at)
        self._last_cpu_s = 0.0

    def take(self) -> Sample:
        """One sample: use since the last one."""
        now = time.monotonic()
        memory, totals = self._walk()
        cpu_s, by_group = totals.cpu_s, None
        if self.group is not None:
            by_group = self.group.cpu_s()
            memory = self.group.memory_bytes() or memory
        cpu_s = by_group if by_group is not None else cpu_s
        passed = max(1e-3, now - self._last_at)
        percent = max(0.0, (cpu_s - self._last_cpu_s) / passed * 100)
        self._last_at, self._last_cpu_s = now, cpu_s
        received, sent = network_bytes()
        gpu = self.gpus.use() if self.gpus is not None else None
        return Sample(
            at=time.time(),
            cpu_percent=round(percent, 1),
            memory_bytes=memory,
            disk_read_bytes=totals.read,
            disk_write_bytes=totals.written,
            disk_used_bytes=self._disk(now),
            network_receive_bytes=max(0, received - self._network_start[0]),
            network_send_bytes=max(0, sent - self._network_start[1]),
            gpu_percent=None if gpu is None else gpu[0],
            gpu_memory_bytes=None if gpu is None else gpu[1],
        )

    def _walk(self) -> tuple[int, _Totals]:
        """Resident memory now, and the totals so far."""
        memory = 0
        pids = self.group.pids() if self.group is not None else processes.descendants(self.shim_pid)
        for pid in pids:
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = Path(f"/proc/{pid}/stat").read_bytes()
                fields = stat[stat.rindex(b")") + 2 :].split()
                memory += int(fields[21]) * _PAGE
                totals = self._per_process.setdefault((pid, int(fields[19])), _Totals())
                totals.cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
                for line in Path(f"/proc/{pid}/io").read_bytes().splitlines():
                    name, _, value = line.partition(b": ")
                    if name == b"read_bytes":
                        totals.read = int(value)
                    elif name == b"write_bytes":
                        totals.written = int(value)
        every = self._per_process.values()
        return memory, _Totals(
            cpu_s=sum(t.cpu_s for t in every),
            read=sum(t.read for t in every),
            written=sum(t.written for t in every),
        )

    def _disk(self, now: float) -> int:
        if now - self._disk_at >= _DISK_EVERY_S:
            self._disk_at = now
            self._disk_used = folder_bytes(self.folder)
        return self._disk_used


def folder_bytes(folder: Path) -> int:
    """Disk blocks held below a folder; shared (linked) files are not counted, nor is more than can be seen quickly."""
    total, seen = 0, 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                entry = os.lstat(os.path.join(top, name))
                if entry.st_nlink == 1:
                    total += entry.st_blocks * 512
        seen += len(names)
        if seen > _DISK_ENTRIES:
            break
    return total


def network_bytes() -> tuple[int, int]:
    """Bytes received and sent by the machine since boot, its loopback left out."""
    received = sent = 0
    with open("/proc/net/dev", encoding="ascii") as file:
        for line in file.readlines()[2:]:
            name, _, numbers = line.partition(":")
            if name.strip() != "lo":
                fields = numbers.split()
                received += int(fields[0])
                sent += int(fields[8])
    return received, sent
