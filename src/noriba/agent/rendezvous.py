"""How the nodes of one job meet: rank 0 listens, the others tell it their host and ports, all get the whole list.

Lines of JSON over TCP. Rank 0 announces its address through the control plane (``TaskRendezvous``); the others
are given it as ``leader``. Later the same door answers whether the job's leading part is over, which ends
processes that would wait for ever (parameter servers, Ray workers).
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable

import msgspec

from noriba.agent.distribution import Peer
from noriba.agent.transfer.errors import Cancelled

_LINE_BYTES = 1 << 20
_TRY_S = 0.2


class Hello(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``peer`` joins the job ``job``; without ``peer`` it asks how far the job is."""

    job: str
    peer: Peer | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    peers: list[Peer] = []
    finished: bool = False
    error: str = ""


def free_ports(count: int, host: str) -> list[int]:
    """Ports that nobody listens on now, all different."""
    held = []
    try:
        for _ in range(count):
            door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.append(door)
            try:
                door.bind((host, 0))
            except OSError:
                door.bind(("", 0))
        return [door.getsockname()[1] for door in held]
    finally:
        for door in held:
            door.close()


class Leader:
    """Rank 0's door. ``port`` 0 takes any; give the old one after a restart of the agent."""

    def __init__(self, job: str, own: Peer, node_count: int, port: int = 0) -> None:
        self._job = job
        self._count = node_count
        self._peers: dict[int, Peer] = {own.rank: own}
        self._waiting: list[socket.socket] = []
        self._lock = threading.Condition()
        self._finished = False
        self._closed = False
        self._door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._door.bind((own.host, port))
        except OSError:
            self._door.bind(("", port))  # the host's name is not an address of this machine as it sees itself
        self._door.listen(256)
        self.port: int = self._door.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="rendezvous", daemon=True)
        self._thread.start()

    def wait(self, cancelled: Callable[[], bool], on_arrival: Callable[[int], None]) -> list[Peer]:
        """All peers in order of rank, when all have come. ``on_arrival`` hears how many are there."""
        known = 0
        while True:
            with self._lock:
                if len(self._peers) <= known:
                    self._lock.wait(_TRY_S)
                found = sorted(self._peers.values(), key=lambda peer: peer.rank)
            if cancelled():
                raise Cancelled
            if len(found) > known:
                known = len(found)
                on_arrival(known)
            if known == self._count:
                return found

    def know(self, peers: list[Peer]) -> None:
        """Peers from an earlier life of the agent."""
        with self._lock:
            self._peers.update({peer.rank: peer for peer in peers})

    def finish(self) -> None:
        """From now on tell those who ask that the leading part is over."""
        with self._lock:
            self._finished = True

    def close(self) -> None:
        with self._lock:
            self._closed = True
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self._thread.join(1.0)

    def _serve(self) -> None:
        while True:
            try:
                visitor, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._receive, args=(visitor,), daemon=True).start()

    def _receive(self, visitor: socket.socket) -> None:
        try:
            visitor.settimeout(10.0)
            hello = msgspec.json.decode(_read_line(visitor), type=Hello)
            if hello.job != self._job:
                _write(visitor, Answer(error=f"this is job {self._job}"))
            elif hello.peer is None:
                with self._lock:
                    answer = Answer(finished=self._finished)
                _write(visitor, answer)
            else:
                self._join(visitor, hello.peer)
                return
        except (OSError, msgspec.DecodeError):
            pass  # a visitor that does not speak our language, or left
        visitor.close()

    def _join(self, visitor: socket.socket, peer: Peer) -> None:
        if not 0 <= peer.rank < self._count:
            with visitor:
                _write(visitor, Answer(error=f"there is no rank {peer.rank}"))
            return
        with self._lock:
            self._peers[peer.rank] = peer
            self._waiting.append(visitor)
            self._lock.notify_all()
            if len(self._peers) < self._count:
                return
            ready, self._waiting = self._waiting, []
            answer = Answer(peers=sorted(self._peers.values(), key=lambda found: found.rank))
        for other in ready:
            with other, contextlib.suppress(OSError):
                _write(other, answer)


def join(address: str, job: str, own: Peer, cancelled: Callable[[], bool]) -> list[Peer]:
    """Meet the others at rank 0's ``address``; tries until it answers. Raises ``Cancelled``."""
    while True:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            answer = _ask(address, Hello(job=job, peer=own), cancelled)
            if answer.peers:
                return answer.peers
        if cancelled():
            raise Cancelled
        time.sleep(_TRY_S)


def is_finished(address: str, job: str) -> bool | None:
    """Whether the leading part of the job is over; None if nobody answers."""
    try:
        return _ask(address, Hello(job=job), lambda: False, timeout_s=5.0).finished
    except (OSError, msgspec.DecodeError):
        return None


def _ask(address: str, hello: Hello, cancelled: Callable[[], bool], timeout_s: float | None = None) -> Answer:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 5.0) as door:
        _write(door, hello)
        door.settimeout(timeout_s)
        with selectors.DefaultSelector() as selector:
            selector.register(door, selectors.EVENT_READ)
            while timeout_s is None and not selector.select(_TRY_S):
                if cancelled():
                    raise Cancelled
        return msgspec.json.decode(_read_line(door), type=Answer)


def _write(door: socket.socket, message: msgspec.Struct) -> None:
    door.sendall(msgspec.json.encode(message) + b"\n")


def _read_line(door: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        part = door.recv(65536)
        if not part or len(data) > _LINE_BYTES:
            raise ConnectionError("the other side went away")
        data += part
    return data
