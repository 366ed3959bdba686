"""The zygote: a process that has the agent imported and forks agents, so that a node costs milliseconds.

``python -m noriba.engines.zygote FD``: requests come over the inherited socket ``FD``, one JSON object each, with
the agent's log file as a descriptor; the answer is the new process's identity or an error. It has one thread, keeps no state, and ends
when the other side of the socket does. Agents have a session of their own and outlive it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import traceback
from typing import NoReturn

import msgspec

from noriba.agent import cgroups, linux, main, processes


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """Start an agent with these arguments and variables."""

    arguments: list[str]
    environment: dict[str, str]


class Forked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The agent's process, or why there is none."""

    identity: processes.Identity | None = None
    error: str = ""


def serve(requests: socket.socket) -> None:
    """Answer until the other side is gone."""
    cgroups.detect_once()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # agents need nobody to wait for them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 18, 1)
        if not message:
            return
        log = descriptors[0]
        try:
            request = msgspec.json.decode(message, type=Fork)
            pid = os.fork()
            if pid == 0:
                _become_agent(request, log)
            ticks = processes.start_ticks(pid)
            if ticks is None:
                answer = Forked(error="it ended at once")
            else:
                answer = Forked(identity=processes.Identity(pid=pid, ticks=ticks, boot=processes.boot_id()))
        except (OSError, msgspec.DecodeError) as error:
            answer = Forked(error=str(error))
        os.close(log)
        requests.send(msgspec.json.encode(answer))


def _become_agent(request: Fork, log: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        linux.close_except(set())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(request.environment)
        code = main.main(request.arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    linux.set_process_name("noriba-zygote")
    serve(socket.socket(fileno=int(sys.argv[1])))
