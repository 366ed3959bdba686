"""The spawner: forked from the agent before it has threads, so that a shim costs a fork and not an interpreter.

The agent sends, over a socket pair, the folder of a task and the write end of a pipe; the spawner forks a shim
that keeps the pipe. When the agent goes, for whatever reason, the spawner reads the end of the stream and goes
too; its shims stay.
"""

from __future__ import annotations

import contextlib
import gc
import os
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
        """Start the shim of a task; returns a pipe that tells ``started``/``exited`` and ends with the shim.

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


def _serve(requests: socket.socket, groups: cgroups.Cgroups) -> NoReturn:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with the agent's end of the socket
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # shims need no parent to wait for them
        with contextlib.suppress(OSError):
            linux.set_process_name("noriba-spawner")
        linux.close_except({requests.fileno()})
        while True:
            message, descriptors, _, _ = socket.recv_fds(requests, 4096, 1)
            if not message:
                os._exit(0)
            notify = descriptors[0]
            try:
                pid = os.fork()
            except OSError as error:
                os.write(notify, f"error {error.strerror}\n".encode())
                os.close(notify)
                continue
            if pid == 0:
                _turn_into_shim(Path(os.fsdecode(message)), notify, groups)
            os.close(notify)
    finally:
        os._exit(1)


def _turn_into_shim(root: Path, notify: int, groups: cgroups.Cgroups) -> NoReturn:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        linux.close_except({notify})
        shim.main(root, notify, groups)
    finally:
        os._exit(1)
