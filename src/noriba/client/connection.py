"""HTTP to one server over one kept-alive connection, on the standard library."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec

from noriba.client.errors import ApiError, NoServer, Untrusted

RETRIES = 4
RETRIED = frozenset({429, 502, 503, 504})
CHUNK_BYTES = 1 << 20


class Answer(NamedTuple):
    """An HTTP answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None when it is empty or something else."""
        try:
            return msgspec.json.decode(self.body) if self.body else None
        except msgspec.DecodeError:
            return None


class Connection:
    """Requests to ``base_url``. ``ca_files`` are trusted in place of the system's certificates when given."""

    def __init__(self, base_url: str, ca_files: list[Path] | None = None, *, timeout_s: float = 60.0) -> None:
        self.base_url = base_url.rstrip("/")
        self._ca_files = ca_files or []
        self._timeout_s = timeout_s
        self._parts = urlsplit(self.base_url)
        self._connection: http.client.HTTPConnection | None = None
        self._context: ssl.SSLContext | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Send a request and read the whole answer, whatever its status.

        ``path`` is a path or an absolute URL of this server. Requests that the server could not take (429, 502-504)
        or whose idle connection was closed are sent again. Raises NoServer or Untrusted.
        """
        for attempt in range(RETRIES + 1):
            response = self._send(method, path, query, headers, body)
            answer = Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
            if answer.status not in RETRIED or attempt == RETRIES:
                return answer
            time.sleep(_retry_after_s(answer, attempt))
        raise AssertionError("unreachable")

    def stream(self, path: str, *, headers: Mapping[str, str] | None = None) -> Iterator[bytes]:
        """The content of a GET, in chunks. Raises ApiError unless the answer is 200 or 206."""
        response = self._send("GET", path, None, headers, None)
        if response.status not in (200, 206):
            answer = Answer(response.status, {}, response.read())
            raise ApiError.from_answer(
                answer.status, answer.json(), f"{path.partition('?')[0]}: HTTP {answer.status}"
            )
        while chunk := response.read(CHUNK_BYTES):
            yield chunk

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- underneath

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int | None] | None,
        headers: Mapping[str, str] | None,
        body: bytes | None,
    ) -> http.client.HTTPResponse:
        target = self._target(path, query)
        fresh = self._connection is None
        while True:
            connection = self._open()
            try:
                connection.request(method, target, body=body, headers=dict(headers or {}))
                return connection.getresponse()
            except ssl.SSLCertVerificationError as error:
                self.close()
                raise Untrusted(
                    f"The certificate of {self.base_url} can not be verified: {error.verify_message}. "
                    'Name its CA with SSL_CERT_FILE, or run: eval "$(noriba env)"'
                ) from error
            except (
                ConnectionError,
                http.client.HTTPException,
                TimeoutError,
                socket.gaierror,
                OSError,
            ) as error:
                self.close()
                # A kept connection may have been closed by the other side meanwhile: that one is tried anew.
                if not fresh and isinstance(error, ConnectionError | http.client.RemoteDisconnected):
                    fresh = True
                    continue
                raise NoServer(f"No server answers at {self.base_url}: {_reason(error)}.") from error

    def _target(self, path: str, query: Mapping[str, str | int | None] | None) -> str:
        if path.startswith(("https://", "http://")):
            parts = urlsplit(path)
            if (parts.scheme, parts.netloc) != (self._parts.scheme, self._parts.netloc):
                raise ValueError(f"{path} is not an address of {self.base_url}")
            path = parts.path + (f"?{parts.query}" if parts.query else "")
        else:
            path = self._parts.path + path
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        if given:
            path += ("&" if "?" in path else "?") + urlencode(given)
        return path

    def _open(self) -> http.client.HTTPConnection:
        if self._connection is None:
            host, port = self._parts.hostname or "", self._parts.port
            if self._parts.scheme == "https":
                self._connection = http.client.HTTPSConnection(
                    host, port, timeout=self._timeout_s, context=self._tls()
                )
            else:
                self._connection = http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        return self._connection

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            if self._ca_files:
                self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                for file in self._ca_files:
                    self._context.load_verify_locations(file)
            else:
                self._context = ssl.create_default_context()
        return self._context


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _retry_after_s(answer: Answer, attempt: int) -> float:
    try:
        return min(float(answer.headers["retry-after"]), 30.0)
    except (KeyError, ValueError):
        return min(0.2 * 2.0**attempt, 5.0)
