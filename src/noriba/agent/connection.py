"""Calls to the control plane: msgpack over one kept-alive HTTP(S) connection per thread."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from noriba.agent.protocol import SyncRequest, SyncResponse, TaskSpec

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
        self._http: http.client.HTTPConnection | None = None
        self._headers: dict[str, str] = {}

    def sync(self, request: SyncRequest) -> SyncResponse:
        """One exchange. Raises ``Unreachable`` or ``Refused``."""
        body = self._call("POST", "/sync", _encoder.encode(request), request.wait_s + _ANSWER_TIMEOUT_S)
        return _decode(_responses, body)

    def get_task(self, task_id: str) -> TaskSpec:
        """A task as it is wanted now, with fresh SAS. Raises ``Unreachable`` or ``Refused``."""
        return _decode(
            _specs, self._call("GET", f"/tasks/{quote(task_id, safe='')}", None, _ANSWER_TIMEOUT_S)
        )

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def _call(self, method: str, path: str, body: bytes | None, timeout_s: float) -> bytes:
        while True:
            fresh = self._http is None
            try:
                connection = self._http or self._connect()
                assert connection.sock is not None
                connection.sock.settimeout(timeout_s)
                connection.request(method, self._base + path, body, self._headers)
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A kept-alive connection that the other side has closed meanwhile; every call may be repeated.
                if not fresh and not isinstance(error, TimeoutError):
                    continue
                raise Unreachable(f"{type(error).__name__}: {error}") from error
            if response.will_close:
                self.close()
            if response.status != 200:
                raise Refused(response.status, content[:500].decode("utf-8", "replace"))
            return content

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=_CONNECT_TIMEOUT_S, context=self._context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=_CONNECT_TIMEOUT_S)
        token = self._token_file.read_text().strip()
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/msgpack",
            "Accept": "application/msgpack",
        }
        connection.connect()
        self._http = connection
        return connection


def _decode(decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise Refused(502, f"the answer can not be understood: {error}") from error
