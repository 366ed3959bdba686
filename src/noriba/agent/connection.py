"""Calls to the control plane: msgpack over one kept-alive HTTP(S) connection per thread."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from noriba.agent.protocol import SyncRequest, SyncResponse, TaskSpec
from noriba.agent.wire import Wire, WireError

T = TypeVar("T")

_CONNECT_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 30.0

_encoder = msgspec.msgpack.Encoder()
_responses = msgspec.msgpack.Decoder(SyncResponse)
_specs = msgspec.msgpack.Decoder(TaskSpec)


class Unreachable(Exception):
    """No answer: the network or the control plane is down. Trying again may help."""


class Refused(Exception):
    """The control plane answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status


class ControlPlane(Protocol):
    """What the agent needs of a control plane."""

    def sync(self, request: SyncRequest) -> SyncResponse: ...

    def get_task(self, task_id: str) -> TaskSpec: ...

    def close(self) -> None: ...


class Connection:
    """One connection; not thread-safe. Opens itself when needed and again after a failure."""

    def __init__(self, server_url: str, node_id: str, token_file: Path, ca_file: Path | None) -> None:
        parts = urlsplit(server_url)
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (443 if self._tls else 80)
        self._base = f"{parts.path.rstrip('/')}/agent/v1/nodes/{quote(node_id, safe='')}"
        self._token_file = token_file
        self._context = ssl.create_default_context(cafile=ca_file and str(ca_file)) if self._tls else None
        self._wire: Wire | None = None
        self._authorization = ""

    def sync(self, request: SyncRequest) -> SyncResponse:
        """One exchange. Raises ``Unreachable`` or ``Refused``."""
        body = self._call("POST", "/sync", _encoder.encode(request), request.wait_s + _ANSWER_TIMEOUT_S)
        return _decode(_responses, body)

    def get_task(self, task_id: str) -> TaskSpec:
        """A task as it is wanted now, with fresh SAS. Raises ``Unreachable`` or ``Refused``."""
        return _decode(_specs, self._call("GET", f"/tasks/{quote(task_id, safe='')}", b"", _ANSWER_TIMEOUT_S))

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _call(self, method: str, path: str, body: bytes, timeout_s: float) -> bytes:
        while True:
            fresh = self._wire is None
            try:
                wire = self._wire or self._connect()
                answer = wire.call(self._head(method, path, len(body)), body, timeout_s)
            except (OSError, WireError) as error:
                self.close()
                # A kept-alive connection that the other side has closed meanwhile; every call may be repeated.
                if not fresh and not isinstance(error, TimeoutError):
                    continue
                raise Unreachable(f"{type(error).__name__}: {error}") from error
            if not wire.is_open:
                self._wire = None
            if answer.status in (401, 403):
                self.close()  # the next call reads the token again: it may have been renewed
            if answer.status != 200:
                raise Refused(answer.status, answer.body[:500].decode("utf-8", "replace"))
            return answer.body

    def _connect(self) -> Wire:
        # Read anew each time, so that a new token needs no new agent.
        self._authorization = self._token_file.read_text().strip()
        self._wire = Wire(self._host, self._port, self._context, _CONNECT_TIMEOUT_S)
        return self._wire

    def _head(self, method: str, path: str, length: int) -> bytes:
        return (
            f"{method} {self._base}{path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Authorization: Bearer {self._authorization}\r\nAccept: application/msgpack\r\n"
            f"Content-Type: application/msgpack\r\nContent-Length: {length}\r\n\r\n"
        ).encode("ascii")


def _decode(decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise Refused(502, f"the answer can not be understood: {error}") from error
