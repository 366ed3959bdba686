"""The spawner: forked from the agent before it has threads, so that a shim costs a fork and not an interpreter.

The agent sends, over a socket pair, the folder of a task and the write end of a pipe; the spawner passes both to
a shim that waits for work, or forks one. When the agent goes, for whatever reason, the spawner reads the end of
the stream and goes too; shims that have a task stay until it is over.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

from noriba.agent import cgroups, linux, shim


class Spawner:
    """The agent's handle on its spawner. Create it before the process starts any thread."""

    def __init__(self, groups: cgroups.Cgroups) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            _serve(theirs, groups)
        theirs.close()
        self.pid = pid
        self._socket = ours
        self._lock = threading.Lock()
        self._dead = False

    def start_shim(self, task_root: Path) -> int:
        """Start the shim of a task; returns a pipe that tells ``started``/``exited`` and ends with the task.

        Falls back to an interpreter of its own when the spawner is gone.
        """
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            with self._lock:
                if not self._dead:
                    try:
                        socket.send_fds(self._socket, [os.fsencode(task_root)], [write_end])
                        return read_end
                    except OSError:
                        self._dead = True
            argv = [sys.executable, "-m", "noriba.agent.shim", str(task_root), str(write_end)]
            subprocess.Popen(argv, pass_fds=[write_end], stdin=subprocess.DEVNULL, start_new_session=True)
            return read_end
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)

    def close(self) -> None:
        """Let the spawner go; shims stay."""
        self._socket.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


_IDLE_SHIMS = 2
"""Shims that are kept waiting for work."""


def _serve(requests: socket.socket, groups: cgroups.Cgroups) -> NoReturn:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with the agent's end of the socket
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # shims need no parent to wait for them
        with contextlib.suppress(OSError):
            linux.set_process_name("noriba-spawner")
        linux.close_except({requests.fileno()})
        gc.disable()
        _Pool(requests, groups).run()
    finally:
        os._exit(1)


class _Pool:
    """The spawner's shims."""

    def __init__(self, requests: socket.socket, groups: cgroups.Cgroups) -> None:
        self._requests = requests
        self._groups = groups
        self._poller = select.poll()
        self._doors: dict[int, socket.socket] = {}
        self._idle: list[int] = []

    def run(self) -> None:
        """Serve until the agent is gone."""
        self._poller.register(self._requests, select.POLLIN)
        self._idle.append(self._fork())
        while True:
            for descriptor, _ in self._poller.poll():
                if descriptor == self._requests.fileno():
                    message, descriptors, _, _ = socket.recv_fds(self._requests, 4096, 1)
                    if not message:
                        return
                    self._give(message, descriptors[0])
                    os.close(descriptors[0])
                else:
                    self._hear(descriptor)

    def _give(self, task: bytes, notify: int) -> None:
        """Hand a task to a shim. A shim that died meanwhile is passed over."""
        while True:
            try:
                descriptor = self._idle.pop() if self._idle else self._fork()
            except OSError as error:
                os.write(notify, f"error {error.strerror}\n".encode())
                return
            try:
                socket.send_fds(self._doors[descriptor], [task], [notify])
                return
            except OSError:
                self._drop(descriptor)

    def _hear(self, descriptor: int) -> None:
        """A shim has done its task, or is gone."""
        try:
            message = self._doors[descriptor].recv(16)
        except OSError:
            message = b""
        if message and len(self._idle) < _IDLE_SHIMS:
            self._idle.append(descriptor)
        else:
            self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        if descriptor in self._idle:
            self._idle.remove(descriptor)
        self._poller.unregister(descriptor)
        self._doors.pop(descriptor).close()

    def _fork(self) -> int:
        """A new shim; returns the descriptor of its door."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            _turn_into_shim(theirs, self._groups)
        theirs.close()
        self._doors[ours.fileno()] = ours
        self._poller.register(ours, select.POLLIN)
        return ours.fileno()


def _turn_into_shim(door: socket.socket, groups: cgroups.Cgroups) -> NoReturn:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        linux.close_except({door.fileno()})
        shim.serve(door, groups)
    finally:
        os._exit(1)
