"""Processes as ``/proc`` shows them: who lives, who descends from whom, how to end them all."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Names one process for good: pid, start time in ticks since boot, and the boot."""

    pid: int
    ticks: int
    boot: str

    def is_alive(self) -> bool:
        return self.boot == boot_id() and is_alive(self.pid, self.ticks)


def own_identity() -> Identity:
    """Of the calling process."""
    ticks = start_ticks(os.getpid())
    assert ticks is not None  # we are alive
    return Identity(pid=os.getpid(), ticks=ticks, boot=boot_id())


def boot_id() -> str:
    """Changes when the machine restarts."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: with the pid it names a process for good.

    None if there is none, or only its zombie.
    """
    fields = _stat(pid)
    if fields is None or fields[0] == b"Z":
        return None
    return int(fields[19])


def is_alive(pid: int, ticks: int) -> bool:
    """Whether the process ``pid`` that started at ``ticks`` still runs."""
    return start_ticks(pid) == ticks


def _stat(pid: int) -> list[bytes] | None:
    """Fields of ``/proc/PID/stat`` from the state on (index 0 = state, 1 = parent)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            data = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in brackets and may hold anything, brackets included.
    return data[data.rindex(b")") + 2 :].split()


def descendants(pid: int) -> list[int]:
    """All living processes below ``pid``, zombies left out, parents before their children.

    One pass over ``/proc``: many kernels are built without its ``children`` files.
    """
    below: dict[int, list[tuple[int, bool]]] = {}
    for other in all_pids():
        fields = _stat(other)
        if fields is not None:
            below.setdefault(int(fields[1]), []).append((other, fields[0] != b"Z"))
    found: list[int] = []
    queue = [pid]
    while queue:
        for child, lives in below.get(queue.pop(0), ()):
            queue.append(child)
            if lives:
                found.append(child)
    return found


def all_pids() -> list[int]:
    """Every process of this machine (of this pid namespace)."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


TASK_VARIABLE = "NORIBA_TASK"
"""Holds the folder of its task in the environment of every process of a user."""


def of_tasks_below(folder: Path) -> list[int]:
    """Living processes that belong to a task whose folder is ``folder`` or below it, by what their environment
    said at their start; those of other users are not seen.
    """
    wanted = f"{TASK_VARIABLE}={folder}".encode()
    found = []
    for pid in all_pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read()
        except OSError:
            continue
        if wanted not in environment:
            continue
        marked = any(item == wanted or item.startswith(wanted + b"/") for item in environment.split(b"\0"))
        if marked and start_ticks(pid) is not None:
            found.append(pid)
    return found


def send(pids: Iterable[int], signal_number: int) -> None:
    """Signal processes; those that are gone are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal_number)


def open_pidfd(pid: int, ticks: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None if it is gone already."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if not is_alive(pid, ticks):
        os.close(descriptor)
        return None
    return descriptor


def wait_gone(pid: int, ticks: int, timeout_s: float) -> bool:
    """Wait until the process is gone; False if it still lives after ``timeout_s``."""
    descriptor = open_pidfd(pid, ticks)
    if descriptor is None:
        return True
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(max(0, int(timeout_s * 1000)))) or not is_alive(pid, ticks)
    finally:
        os.close(descriptor)


def end_tree(pid: int, ticks: int, timeout_s: float = 5.0) -> bool:
    """SIGKILL a process and all below it; True when all are gone.

    The root is stopped first: it can then start nothing new, and its children stay its children.
    """
    if not is_alive(pid, ticks):
        return True
    send([pid], signal.SIGSTOP)
    deadline = time.monotonic() + timeout_s
    while below := descendants(pid):
        send(below, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        time.sleep(0.002)
    send([pid], signal.SIGKILL)
    return wait_gone(pid, ticks, max(0.0, deadline - time.monotonic())) and not below
