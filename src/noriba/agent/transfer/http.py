"""One file from a web address."""

from __future__ import annotations

import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from urllib.parse import unquote, urlsplit

from noriba.agent.transfer.blob import write_at
from noriba.agent.transfer.errors import AccessDenied, Cancelled, NotFound, TransferError, Unavailable

_ATTEMPTS = 4
_TIMEOUT_S = 60.0
_READ_BYTES = 1 << 18


def file_name(url: str) -> str:
    """The last segment of an address's path, ``data`` if it has none."""
    name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2]).replace("/", "_").replace("\0", "")
    return name if name not in ("", ".", "..") else "data"


def fetch(
    url: str,
    uri: str,
    descriptor: int,
    context: Callable[[], ssl.SSLContext],
    cancelled: Callable[[], bool],
) -> int:
    """GET ``url`` into an open file; returns its size. Goes on where it broke off if the server can.

    Raises ``NotFound``, ``AccessDenied``, ``Unavailable`` or ``TransferError``.
    """
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context()))
    position, etag, failures = 0, "", 0
    while True:
        request = urllib.request.Request(url, headers={"User-Agent": "noriba", "Accept-Encoding": "identity"})
        if position and etag:
            request.add_header("Range", f"bytes={position}-")
            request.add_header("If-Range", etag)
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as response:
                if response.status != 206:
                    position = 0
                    os.ftruncate(descriptor, 0)
                etag = response.headers.get("ETag") or ""
                expected = response.headers.get("Content-Length")
                end = None if expected is None else position + int(expected)
                while part := response.read(_READ_BYTES):
                    if cancelled():
                        raise Cancelled
                    write_at(descriptor, part, position)
                    position += len(part)
                if end is None or position == end:
                    return position
                raise ConnectionError(f"ended after {position} of {end} bytes")
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise NotFound(f"{uri} does not exist (HTTP {error.code})") from None
            if error.code in (401, 403):
                raise AccessDenied(f"{uri} may not be read by this job (HTTP {error.code})") from None
            if error.code not in (408, 425, 429) and error.code < 500:
                raise TransferError(f"{uri} could not be read (HTTP {error.code})") from None
            reason = f"HTTP {error.code}"
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or repr(error)
        except ValueError as error:
            raise TransferError(f"{uri} is not an address that can be read: {error}") from None
        failures += 1
        if failures >= _ATTEMPTS:
            raise Unavailable(f"{uri} could not be read: {reason}; tried {failures} times")
        time.sleep(0.3 * 2 ** (failures - 1))
