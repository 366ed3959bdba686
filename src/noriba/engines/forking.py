"""The engine's handle on its zygote (``zygote.py``)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading

import msgspec

from noriba.agent.processes import Identity
from noriba.engines.zygote import Fork, Forked

_log = logging.getLogger(__name__)

_ANSWER_S = 20.0


class Zygote:
    """Starts the zygote when it is first needed, and again when it has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def warm_up(self) -> None:
        """Start it now, so that the first node is as quick as the others."""
        with self._lock:
            self._door()

    def fork(self, arguments: list[str], log: int) -> Identity | None:
        """An agent with ``arguments`` whose output goes to the descriptor ``log``; None if the zygote failed."""
        # The server's own settings (a database's password) are none of the agents' business.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("NORIBA_") or name.startswith("NORIBA_TEST_")
        }
        request = msgspec.json.encode(Fork(arguments=arguments, environment=environment))
        with self._lock:
            for _ in range(2):
                try:
                    door = self._door()
                    socket.send_fds(door, [request], [log])
                    message = door.recv(1 << 16)
                    if not message:
                        raise ConnectionError("it ended")
                    answer = msgspec.json.decode(message, type=Forked)
                except (OSError, msgspec.DecodeError) as error:
                    _log.warning("the zygote failed: %s", error)
                    self._end()
                    continue
                if answer.identity is None:
                    _log.warning("the zygote could not fork: %s", answer.error)
                return answer.identity
        return None

    def close(self) -> None:
        """Let it go; agents stay."""
        with self._lock:
            self._end()

    def _door(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "noriba.engines.zygote", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.settimeout(_ANSWER_S)
        self._socket = ours
        return ours

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None
