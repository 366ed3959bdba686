"""The shim: a small process that starts a task's processes, holds them and outlives the agent.

It is forked from the spawner (never from the agent, which has threads), leads a session of its own, and is the
subreaper of everything the user starts: whatever forks away comes back to it and is ended with the task. What it
learns goes to the task's folder (``folder.py``), so that any later agent can take over; a pipe to the agent that
asked for it makes the common case quick. It imports nothing when it runs and holds no connection of any kind.

Order of the end: the first process to fail, the timeout or a wish to stop -> SIGTERM to all, SIGKILL after the
grace period -> nothing is left -> exit record -> the agent is told -> the record is durable.

A shim whose task has gone without a trace waits for the next one: a warm process starts a task in a fraction of
the time that a fresh fork needs to touch its memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from noriba.agent import cgroups, linux
from noriba.agent.folder import TaskFolder
from noriba.agent.supervisor import Supervisor


def serve(door: socket.socket, groups: cgroups.Cgroups) -> NoReturn:
    """Do the tasks that the spawner sends (folder and pipe), one after the other, until it is gone."""
    try:
        wake = _prepare_process()
        while True:
            message, descriptors, _, _ = socket.recv_fds(door, 4096, 1)
            if not message:
                break
            again = _do(Path(os.fsdecode(message)), descriptors[0], groups, wake)
            os.close(descriptors[0])
            if not again:
                break
            door.send(b"idle")
    except OSError:
        pass  # the spawner went away: nothing more to do
    finally:
        os._exit(0)


def _prepare_process() -> int:
    """What a shim sets up once; returns the descriptor that wakes it when a signal has come."""
    with contextlib.suppress(OSError):
        linux.set_process_name("noriba-shim")
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    # Handlers rather than SIG_IGN: what is ignored stays ignored in the user's programs.
    for number in (
        signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP,
        signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2,
    ):  # fmt: skip
        signal.signal(number, lambda *_: None)
    linux.set_child_subreaper()
    os.umask(0o022)
    gc.disable()
    return wake_read


def _do(root: Path, notify: int | None, groups: cgroups.Cgroups, wake: int) -> bool:
    """One task; True if this process is as it was before and may do another."""
    try:
        folder = TaskFolder(root)
        lock = os.open(folder.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.exit_file.exists() or folder.shim_file.exists():
                return True  # it ran already, or its shim was killed; never twice
            launch = folder.read_launch()
            if launch is None:
                raise FileNotFoundError(folder.launch_file)
            return Supervisor(folder, launch, notify, groups, wake).run()
        except BlockingIOError:
            return True  # another shim has this task; an agent asked twice around a restart
        finally:
            os.close(lock)
    except Exception:
        with contextlib.suppress(OSError), open(root / "shim.log", "a", encoding="utf-8") as log:
            log.write(traceback.format_exc())
        return False


if __name__ == "__main__":
    # The way of last resort, when the spawner is gone: an interpreter of our own, for one task.
    _do(
        Path(sys.argv[1]),
        int(sys.argv[2]) if len(sys.argv) > 2 else None,
        cgroups.detect(),
        _prepare_process(),
    )
