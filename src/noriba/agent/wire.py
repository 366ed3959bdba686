"""Just enough HTTP/1.1 for calls to the control plane: one kept-alive connection, whole bodies.

The standard library's client spends most of a call on parsing headers as mail; an agent's calls are on the path of
every task, and hundreds of agents may share a machine.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

_HEAD_BYTES = 64 << 10


class WireError(Exception):
    """What came is no HTTP answer, or not all of one."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


class Wire:
    """A connection to ``host:port``; ``context`` makes it TLS. Raises ``OSError`` if it can not be had."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, timeout_s: float) -> None:
        connection = socket.create_connection((host, port), timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            try:
                connection = context.wrap_socket(connection, server_hostname=host)
            except BaseException:
                connection.close()
                raise
        self._socket = connection
        self._buffer = b""
        self.is_open = True

    def call(self, head: bytes, body: bytes, timeout_s: float) -> Answer:
        """Send a request (``head`` ends with the empty line) and read its answer.

        Raises ``OSError`` or ``WireError``; the connection is of no use then.
        """
        self._socket.settimeout(timeout_s)
        self._socket.sendall(head + body)
        while True:
            status, headers = self._read_head()
            if status >= 200:
                break
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            content = self._read_chunks()
        elif b"content-length" in headers:
            content = self._read(int(headers[b"content-length"]))
        elif status == 204:
            content = b""
        else:
            raise WireError("an answer without a length")
        if headers.get(b"connection", b"").lower() == b"close":
            self.close()
        return Answer(status, content)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._socket.close()

    def _read_head(self) -> tuple[int, dict[bytes, bytes]]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _HEAD_BYTES:
                raise WireError("headers without an end")
            self._receive()
        lines = self._buffer[:end].split(b"\r\n")
        self._buffer = self._buffer[end + 4 :]
        words = lines[0].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise WireError(f"not HTTP: {lines[0][:80]!r}")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        return int(words[1]), headers

    def _read_chunks(self) -> bytes:
        parts: list[bytes] = []
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                self._receive()
            size = int(self._buffer[:end].partition(b";")[0], 16)
            self._buffer = self._buffer[end + 2 :]
            if size == 0:
                while self._read_line():
                    pass
                return b"".join(parts)
            parts.append(self._read(size))
            self._read(2)

    def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._receive()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _read(self, size: int) -> bytes:
        if len(self._buffer) >= size:
            content, self._buffer = self._buffer[:size], self._buffer[size:]
            return content
        parts, have = [self._buffer], len(self._buffer)
        self._buffer = b""
        while have < size:
            part = self._socket.recv(min(1 << 18, size - have))
            if not part:
                raise WireError("the answer broke off")
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def _receive(self) -> None:
        part = self._socket.recv(1 << 16)
        if not part:
            raise WireError("the connection was closed")
        self._buffer += part
