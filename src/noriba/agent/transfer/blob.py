"""The part of the Azure Blob REST API that a node needs: list, ranged read, write (whole or in blocks), delete.

Works with Noriba's data plane and any other that takes a SAS. Connections are kept alive and shared by the
threads of a transfer through ``BlobClient``'s small pool.
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from noriba.agent.protocol import Location
from noriba.agent.transfer.errors import (
    AccessDenied,
    Cancelled,
    LocalFault,
    NotFound,
    TransferError,
    Unavailable,
)

API_VERSION = "2021-12-02"
PART_BYTES = 4 << 20
SINGLE_PUT_BYTES = 4 << 20
_READ_BYTES = 1 << 18
_KEPT = 8
_ATTEMPTS = 5
_TIMEOUT_S = 60.0
_RETRIED = {408, 429, 500, 502, 503, 504}


class Readable(Protocol):
    """An open file to be stored; ``read(n)`` gives ``n`` bytes unless it ends."""

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...


@dataclass(frozen=True)
class Blob:
    """One blob of a listing; ``name`` is complete. A ``is_folder`` blob stands for an empty folder."""

    name: str
    size: int
    etag: str
    modified: float
    is_folder: bool = False


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def error_code(self) -> str:
        return self.headers.get("x-ms-error-code", "") or ""


class ConnectionPool:
    """Kept-alive connections to storage hosts, shared by all transfers of an agent."""

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self._context = context
        self._idle: dict[tuple[bool, str, int], list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def take(self, tls: bool, host: str, port: int) -> http.client.HTTPConnection:
        """A connection, opened already or to be opened by its first request."""
        with self._lock:
            idle = self._idle.get((tls, host, port))
            if idle:
                return idle.pop()
        if tls:
            return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=self._context())
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)

    def give_back(
        self,
        tls: bool,
        host: str,
        port: int,
        connection: http.client.HTTPConnection,
        answer: http.client.HTTPResponse,
    ) -> None:
        """Keep a connection whose answer was read to its end."""
        with self._lock:
            idle = self._idle.setdefault((tls, host, port), [])
            if answer.will_close or not answer.isclosed() or len(idle) >= _KEPT:
                connection.close()
            else:
                idle.append(connection)

    def close(self) -> None:
        with self._lock:
            for idle in self._idle.values():
                for connection in idle:
                    connection.close()
            self._idle.clear()


class BlobClient:
    """A container behind a SAS. ``renew`` fetches the location again when the SAS has run out."""

    def __init__(
        self,
        location: Location,
        pool: ConnectionPool,
        renew: Callable[[], Location] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        parts = urlsplit(location.url)
        self.uri = location.uri or location.url
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._sas = location.sas.lstrip("?")
        self._pool = pool
        self._renew = renew
        self._cancelled = cancelled

    # -- calls --------------------------------------------------------------------------------------------

    def list(self, prefix: str) -> Iterator[Blob]:
        """All blobs whose names begin with ``prefix``. Raises ``NotFound`` if the container is missing."""
        marker = ""
        while True:
            query = f"restype=container&comp=list&include=metadata&prefix={quote(prefix, safe='')}"
            if marker:
                query += f"&marker={quote(marker, safe='')}"
            answer = self._call("GET", "", query)
            self._expect(answer, 200, "list", prefix)
            root = ElementTree.fromstring(answer.body)
            for node in root.iterfind("./Blobs/Blob"):
                yield _parse_blob(node)
            marker = root.findtext("NextMarker") or ""
            if not marker:
                return

    def head(self, name: str) -> Blob | None:
        """A blob's properties; None if there is none."""
        answer = self._call("HEAD", name, "")
        if answer.status == 404:
            return None
        self._expect(answer, 200, "look at", name)
        return Blob(
            name=name,
            size=int(answer.headers.get("Content-Length", "0")),
            etag=_plain_etag(answer.headers.get("ETag", "")),
            modified=_http_time(answer.headers.get("Last-Modified")),
            is_folder=answer.headers.get("x-ms-meta-hdi_isfolder", "").lower() == "true",
        )

    def read_range(self, blob: Blob, offset: int, length: int, descriptor: int) -> None:
        """Write bytes ``offset .. offset + length`` of a blob to the same place of an open file.

        Raises ``TransferError`` if the blob changed since it was listed.
        """
        position, end = offset, offset + length
        failures = 0
        while position < end:
            self._check_cancelled()
            headers = {"x-ms-range": f"bytes={position}-{end - 1}"}
            if blob.etag:
                headers["If-Match"] = f'"{blob.etag}"'
            connection = self._take()
            try:
                connection.request("GET", self._target(blob.name, ""), headers=self._headers(headers))
                response = connection.getresponse()
                if response.status not in (200, 206):
                    body = response.read()
                    self._give_back(connection, response)
                    answer = Answer(response.status, response.headers, body)
                    if response.status in _RETRIED or (response.status == 403 and self._renewed()):
                        failures += 1
                        self._pause(failures, answer)
                        continue
                    self._expect(answer, 206, "read", blob.name)
                if response.status == 200 and position:
                    response.read(position)  # a server that knows no ranges
                while position < end and (part := response.read(min(_READ_BYTES, end - position))):
                    write_at(descriptor, part, position)
                    position += len(part)
                    failures = 0
                    self._check_cancelled()
                if position < end:
                    raise http.client.IncompleteRead(b"")
                self._give_back(connection, response)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failures += 1
                self._pause(failures, error)
            except BaseException:
                connection.close()
                raise

    def put(self, name: str, body: bytes, metadata: dict[str, str] | None = None) -> None:
        """Write a small blob whole."""
        headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
        headers.update({f"x-ms-meta-{key}": value for key, value in (metadata or {}).items()})
        self._expect(self._call("PUT", name, "", body, headers), 201, "write", name)

    def put_block(self, name: str, index: int, body: bytes) -> None:
        """Write one block of a large blob; invisible until ``commit_blocks``."""
        query = f"comp=block&blockid={quote(_block_id(index), safe='')}"
        self._expect(self._call("PUT", name, query, body), 201, "write", name)

    def commit_blocks(self, name: str, count: int) -> None:
        """Make blocks ``0 .. count`` the content of the blob."""
        listed = "".join(f"<Latest>{_block_id(i)}</Latest>" for i in range(count))
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
        headers = {"Content-Type": "application/xml", "x-ms-blob-content-type": "application/octet-stream"}
        self._expect(self._call("PUT", name, "comp=blocklist", body, headers), 201, "write", name)

    def put_file(self, name: str, file: Readable, size: int) -> None:
        """Write ``size`` bytes of an open file. Raises ``TransferError`` if the file is shorter by now."""
        if size <= SINGLE_PUT_BYTES:
            self.put(name, _exactly(file, size))
            return
        part = max(PART_BYTES, -(-size // 50_000))
        count = -(-size // part)
        for index in range(count):
            self._check_cancelled()
            self.put_block(name, index, _exactly(file, min(part, size - index * part)))
        self.commit_blocks(name, count)

    def delete(self, name: str) -> None:
        """Delete a blob; a missing one is no error."""
        answer = self._call("DELETE", name, "")
        if answer.status != 404:
            self._expect(answer, 202, "delete", name)

    # -- how ----------------------------------------------------------------------------------------------

    def _call(
        self,
        method: str,
        name: str,
        query: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request with retries; every one of ours may be repeated."""
        failures = 0
        while True:
            self._check_cancelled()
            connection = self._take()
            try:
                connection.request(method, self._target(name, query), body, self._headers(headers or {}))
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failures += 1
                self._pause(failures, error)
                continue
            self._give_back(connection, response)
            answer = Answer(response.status, response.headers, content)
            if answer.status in _RETRIED or (answer.status == 403 and failures == 0 and self._renewed()):
                failures += 1
                self._pause(failures, answer)
                continue
            return answer

    def _target(self, name: str, query: str) -> str:
        path = f"{self._base}/{quote(name)}" if name else self._base
        both = "&".join(part for part in (query, self._sas) if part)
        return f"{path}?{both}" if both else path

    def _headers(self, extra: dict[str, str]) -> dict[str, str]:
        return {"x-ms-version": API_VERSION, **extra}

    def _take(self) -> http.client.HTTPConnection:
        return self._pool.take(self._tls, self._host, self._port)

    def _give_back(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._pool.give_back(self._tls, self._host, self._port, connection, response)

    def _renewed(self) -> bool:
        if self._renew is None:
            return False
        sas = self._renew().sas.lstrip("?")
        changed = sas != self._sas
        self._sas = sas
        return changed

    def _pause(self, failures: int, cause: Answer | Exception) -> None:
        if failures >= _ATTEMPTS:
            said = f"HTTP {cause.status} {cause.error_code}" if isinstance(cause, Answer) else repr(cause)
            raise Unavailable(
                f"{self.uri}: the storage at {self._host}:{self._port} does not answer as it should ({said}); "
                f"tried {failures} times"
            )
        if failures == 1:
            return  # most often a kept-alive connection that was closed meanwhile, or a renewed SAS
        time.sleep(0.2 * 2 ** (failures - 2))

    def _check_cancelled(self) -> None:
        if self._cancelled():
            raise Cancelled

    def _expect(self, answer: Answer, status: int, verb: str, name: str) -> None:
        if answer.status == status or (status == 206 and answer.status == 200):
            return
        where = f"{self.uri}" + (f" ({name})" if name else "")
        said = answer.error_code or f"HTTP {answer.status}"
        if answer.status == 404:
            raise NotFound(f"{where} does not exist ({said})")
        if answer.status in (401, 403):
            raise AccessDenied(
                f"{where}: not allowed to {verb} it ({said}); does the job's identity have access?"
            )
        if answer.status == 412:
            raise Unavailable(f"{where} changed while it was read; submit the job again when it is complete")
        raise TransferError(f"{where}: could not {verb} it ({said})")


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of ``data``. Raises ``LocalFault`` (not ``OSError``, which would look like the network's)."""
    view = memoryview(data)
    try:
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
    except OSError as error:
        raise LocalFault(str(error)) from error


def _exactly(file: Readable, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise TransferError("the file became shorter while it was read")
    return data


def _block_id(index: int) -> str:
    return base64.b64encode(f"{index:08d}".encode()).decode()


def _plain_etag(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')


def _http_time(value: str | None) -> float:
    return email.utils.parsedate_to_datetime(value).timestamp() if value else 0.0


def _parse_blob(node: ElementTree.Element) -> Blob:
    def text(path: str) -> str:
        return node.findtext(path) or ""

    return Blob(
        name=text("Name"),
        size=int(text("Properties/Content-Length") or 0),
        etag=_plain_etag(text("Properties/Etag") or text("Properties/ETag")),
        modified=_http_time(text("Properties/Last-Modified") or None),
        is_folder=text("Metadata/hdi_isfolder").lower() == "true",
    )
