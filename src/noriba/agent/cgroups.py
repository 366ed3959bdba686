"""Control groups for tasks: hold a task's processes together, count what they use, limit them.

Works with cgroup v2, v1 and the mixed set-up, as far as this process may use them; each ability (kill, memory,
pids, cpu, io) is taken from whichever hierarchy offers it. ``detect`` finds that out once; on a machine that
offers nothing every call still works and does nothing (``Cgroups.kind == "none"``).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_V1_CONTROLLERS = ("memory", "pids", "cpuacct", "cpu")
_PERIOD_US = 100_000


@dataclass(frozen=True)
class Limits:
    """What a task may use at most; None = no limit."""

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None


@dataclass
class Cgroups:
    """Where task groups can be made: the folder of each v1 controller, and of v2 with its controllers."""

    v1: dict[str, Path] = field(default_factory=dict)
    v2: Path | None = None
    own_v2: Path | None = None
    """Our own group, where that is not the one below which groups are made."""
    v2_controllers: frozenset[str] = frozenset()
    v2_kill: bool = False

    @property
    def kind(self) -> str:
        """``v2``, ``v1``, ``hybrid`` or ``none``."""
        if self.v2 and (self.v2_controllers or not self.v1):
            return "v2"
        if self.v1:
            return "hybrid" if self.v2 else "v1"
        return "none"

    @property
    def limits_memory(self) -> bool:
        return "memory" in self.v1 or "memory" in self.v2_controllers

    def folders(self, *controllers: str) -> dict[str, Path]:
        """The base folder for each of ``controllers`` that can be had (a v2 folder under the key ``v2``)."""
        found = {name: self.v1[name] for name in controllers if name in self.v1}
        if self.v2:
            found["v2"] = self.v2
        return found


def leave(cgroups: Cgroups) -> None:
    """Take the calling process out of any task's group, back to where the agent is."""
    for folder in cgroups.v1.values():
        _move_self(folder)
    if cgroups.own_v2 is not None:
        _move_self(cgroups.own_v2)


def _move_self(folder: Path) -> None:
    descriptor = os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"0")
    finally:
        os.close(descriptor)


@functools.cache
def detect_once() -> Cgroups:
    """``detect``, remembered: forked agents need not look again."""
    return detect()


def detect(
    mountinfo: str | None = None,
    membership: str | None = None,
    is_usable: Callable[[Path], bool] | None = None,
) -> Cgroups:
    """What this process may use, found by trying.

    The arguments stand in for the two ``/proc/self`` files and for the trial in a group's folder.
    """
    is_usable = is_usable or _can_make_groups
    mountinfo = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    membership = Path("/proc/self/cgroup").read_text() if membership is None else membership
    own: dict[str, str] = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(",") if controllers else [""]:
            own[name] = path
    result = Cgroups()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not kind or kind[0] not in ("cgroup", "cgroup2"):
            continue
        root, mounted = fields[3], Path(fields[4])
        if kind[0] == "cgroup2":
            base = _own_folder(mounted, root, own.get("", "/"))
            _use_v2(result, mounted, base, is_usable)
            result.own_v2 = base
            continue
        for name in kind[2].split(","):
            if name in _V1_CONTROLLERS and name in own and name not in result.v1:
                base = _own_folder(mounted, root, own[name])
                if is_usable(base):
                    result.v1[name] = base
    return result


def _own_folder(mounted: Path, root: str, own: str) -> Path:
    """The folder of our own group below a mount that shows the hierarchy from ``root`` on."""
    relative = own.removeprefix(root) if root != "/" else own
    folder = mounted / relative.lstrip("/")
    return folder if folder.is_dir() else mounted


def _can_make_groups(base: Path) -> bool:
    """Whether groups can be made below ``base``, and this process be moved between it and them."""
    probe = base / f"noriba-probe-{os.getpid()}-{threading.get_ident()}"
    try:
        probe.mkdir()
    except OSError:
        return False
    try:
        return all(os.access(f"{folder}/cgroup.procs", os.W_OK) for folder in (base, probe))
    finally:
        _remove_folder(probe)


def _use_v2(result: Cgroups, mounted: Path, own: Path, is_usable: Callable[[Path], bool]) -> None:
    """Pick the nearest group, from our own upwards, under which groups with controllers can be made.

    A group that holds processes can not give controllers to its children (but for the root), so our own is
    seldom the one.
    """
    fallback: Path | None = None
    for base in (own, *[p for p in own.parents if p == mounted or mounted in p.parents]):
        if not is_usable(base):
            continue
        wanted = {"memory", "pids", "cpu", "io"} & set(_words(base / "cgroup.controllers"))
        for name in wanted - set(_words(base / "cgroup.subtree_control")):
            with contextlib.suppress(OSError):
                (base / "cgroup.subtree_control").write_text(f"+{name}")
        given = wanted & set(_words(base / "cgroup.subtree_control"))
        if given:
            result.v2, result.v2_controllers = base, frozenset(given)
            break
        fallback = fallback or base
    else:
        result.v2 = fallback
    if result.v2:
        probe = result.v2 / f"noriba-probe-{os.getpid()}-{threading.get_ident()}"
        probe.mkdir()
        result.v2_kill = (probe / "cgroup.kill").exists()
        _remove_folder(probe)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


class TaskCgroup:
    """The group of one task. ``name`` is a relative path such as ``noriba/node/task``."""

    def __init__(self, cgroups: Cgroups, name: str) -> None:
        self.cgroups = cgroups
        self.name = name
        self._folders = {
            kind: base / name for kind, base in cgroups.folders("memory", "pids", "cpuacct", "cpu").items()
        }

    def create(self, limits: Limits) -> list[str]:
        """Make the group and set its limits; returns words for each limit that could not be set."""
        if limits.cpus is None:
            self._folders.pop("cpu", None)
        for kind, folder in self._folders.items():
            self._make(kind, folder)
        missing: list[str] = []
        if limits.memory_bytes is not None:
            _try("memory", self._limit_memory, limits.memory_bytes, missing)
        if limits.cpus is not None:
            _try("CPU", self._limit_cpus, limits.cpus, missing)
        if limits.pids is not None:
            _try("process count", self._limit_pids, limits.pids, missing)
        return missing

    def _make(self, kind: str, folder: Path) -> None:
        try:
            os.mkdir(folder)
        except FileExistsError:
            return
        except FileNotFoundError:
            base = self.cgroups.folders(kind)[kind]
            missing = [p for p in folder.parents if base in p.parents]
            for parent in reversed(missing):
                parent.mkdir(exist_ok=True)
                if kind == "v2":
                    for name in self.cgroups.v2_controllers:
                        (parent / "cgroup.subtree_control").write_text(f"+{name}")
            folder.mkdir(exist_ok=True)

    def _limit_memory(self, limit_bytes: int) -> None:
        if "memory" in self._folders:
            folder = self._folders["memory"]
            (folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
            with contextlib.suppress(OSError):  # swap accounting may be off, then there is no such file
                (folder / "memory.memsw.limit_in_bytes").write_text(str(limit_bytes))
            return
        folder = self._v2("memory")
        (folder / "memory.max").write_text(str(limit_bytes))
        with contextlib.suppress(OSError):
            (folder / "memory.swap.max").write_text("0")

    def _limit_cpus(self, cpus: float) -> None:
        quota = max(1000, round(cpus * _PERIOD_US))
        if "cpu" in self._folders:
            (self._folders["cpu"] / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (self._folders["cpu"] / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (self._v2("cpu") / "cpu.max").write_text(f"{quota} {_PERIOD_US}")

    def _limit_pids(self, count: int) -> None:
        folder = self._folders.get("pids") or self._v2("pids")
        (folder / "pids.max").write_text(str(count))

    def _v2(self, controller: str) -> Path:
        if controller not in self.cgroups.v2_controllers:
            raise KeyError(f"no cgroup controller {controller}")
        return self._folders["v2"]

    def join(self) -> None:
        """Put the calling process into the group (all hierarchies); what it starts then is born there."""
        for folder in self._folders.values():
            _move_self(folder)

    def pids(self) -> list[int]:
        """Processes in the group."""
        for kind in ("v2", "pids", "memory", "cpuacct"):
            if kind in self._folders:
                return [int(word) for word in _words(self._folders[kind] / "cgroup.procs")]
        return []

    def kill(self) -> bool:
        """SIGKILL everything in the group at once; False if the kernel has no such call (kill ``pids`` then)."""
        if not (self.cgroups.v2_kill and "v2" in self._folders):
            return False
        try:
            (self._folders["v2"] / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            return False
        return True

    def memory_bytes(self) -> int | None:
        """Memory in use, without the part of the page cache that could be dropped at once."""
        if "memory" in self._folders:
            used = _number(self._folders["memory"] / "memory.usage_in_bytes")
            cache = _field(self._folders["memory"] / "memory.stat", "total_inactive_file")
        elif "memory" in self.cgroups.v2_controllers:
            used = _number(self._folders["v2"] / "memory.current")
            cache = _field(self._folders["v2"] / "memory.stat", "inactive_file")
        else:
            return None
        return None if used is None else max(0, used - (cache or 0))

    def memory_peak_bytes(self) -> int | None:
        """The most memory that was in use, page cache included; None if not known."""
        if "memory" in self._folders:
            return _number(self._folders["memory"] / "memory.max_usage_in_bytes")
        if "memory" in self.cgroups.v2_controllers:
            return _number(self._folders["v2"] / "memory.peak")
        return None

    def oom_kills(self) -> int:
        """How many processes of the group the kernel killed for lack of memory."""
        if "memory" in self._folders:
            return _field(self._folders["memory"] / "memory.oom_control", "oom_kill") or 0
        if "memory" in self.cgroups.v2_controllers:
            return _field(self._folders["v2"] / "memory.events", "oom_kill") or 0
        return 0

    def cpu_s(self) -> float | None:
        """CPU time used, in seconds; None if not known."""
        if "cpuacct" in self._folders:
            used = _number(self._folders["cpuacct"] / "cpuacct.usage")
            return None if used is None else used / 1e9
        if "v2" in self._folders and not self.cgroups.v1:
            used = _field(self._folders["v2"] / "cpu.stat", "usage_usec")
            return None if used is None else used / 1e6
        return None

    def remove(self, timeout_s: float = 2.0) -> None:
        """Remove the group; its processes must be gone (the kernel may need a moment to see that)."""
        deadline = time.monotonic() + timeout_s
        for folder in self._folders.values():
            _remove_folder(folder, deadline)


def _try(word: str, write: Callable[[T], None], value: T, missing: list[str]) -> None:
    try:
        write(value)
    except (OSError, KeyError) as error:
        missing.append(f"{word}: {error}")


def remove_below(cgroups: Cgroups, name: str, timeout_s: float = 2.0) -> None:
    """Remove the group ``name`` with all groups below it, as far as they hold no processes.

    The kernel may need a moment to see that those that were killed are gone.
    """
    deadline = time.monotonic() + timeout_s
    for base in cgroups.folders(*_V1_CONTROLLERS).values():
        top = base / name
        if not top.is_dir():
            continue
        for folder, _, _ in os.walk(top, topdown=False):
            _remove_folder(Path(folder), deadline)


def _remove_folder(folder: Path, deadline: float = 0.0) -> None:
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                return
            time.sleep(0.002)


def _number(path: Path) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else None


def _field(path: Path, name: str) -> int | None:
    words = _words(path)
    for key, value in zip(words[::2], words[1::2], strict=False):
        if key == name:
            return int(value)
    return None
