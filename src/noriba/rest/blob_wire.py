"""Blob Storage's wire format: headers, conditions, ranges, XML, errors."""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
import re
from collections.abc import AsyncIterator, Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, quote
from xml.sax.saxutils import escape

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from noriba.models.errors import BadRequest, NoribaError, Unauthenticated, Unavailable
from noriba.storage.model import BlobHeaders, BlobProperties, Conditions, InvalidRange, NotModified

VERSION = "2025-05-05"
"""What we say to be when a request names no version."""

MAX_METADATA_BYTES = 8 * 1024
_METADATA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Characters that XML 1.0 can not hold, not even escaped; a carriage return would be read back as a line feed.
_NOT_XML = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]")
_NOT_HEADER = re.compile("[^\t\x20-\x7e\x80-\xff]")
_WATCH_BYTES = 4 * 1024 * 1024


# --- times and entity tags


def http_date(seconds: float) -> str:
    """``Mon, 23 Nov 2026 00:00:00 GMT``"""
    return formatdate(int(seconds), usegmt=True)


def parse_date(name: str, value: str) -> float:
    """UTC seconds of an HTTP date. Raises BadRequest."""
    try:
        moment = parsedate_to_datetime(value)
    except ValueError as error:
        raise bad_header(name, value) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def bad_header(name: str, value: str) -> BadRequest:
    """The error for a header that can not be understood."""
    return BadRequest(
        f"The header {name} has a value that is not valid: {value!r}.",
        code="InvalidHeaderValue",
        target=name,
    )


def conditions_of(headers: Mapping[str, str], prefix: str = "") -> Conditions:
    """The conditional headers of a request (``prefix`` ``x-ms-source-`` for those on a copy's source)."""

    def tags(name: str) -> tuple[str, ...]:
        value = headers.get(prefix + name, "")
        parts = (part.strip().removeprefix("W/").strip('"') for part in value.split(","))
        return tuple(part for part in parts if part)

    def date(name: str) -> float | None:
        value = headers.get(prefix + name)
        return None if value is None else parse_date(prefix + name, value)

    if headers.get(prefix + "x-ms-if-tags"):
        raise BadRequest(
            "Conditions on tags are not supported.", code="UnsupportedHeader", target="x-ms-if-tags"
        )
    return Conditions(
        if_match=tags("if-match"),
        if_none_match=tags("if-none-match"),
        if_modified_since=date("if-modified-since"),
        if_unmodified_since=date("if-unmodified-since"),
    )


# --- what describes a blob


def metadata_of(headers: Mapping[str, str]) -> dict[str, str]:
    """``x-ms-meta-*`` of a request. Raises BadRequest for names that are no identifiers."""
    found = {}
    for name, value in headers.items():
        if name.startswith("x-ms-meta-"):
            key = name.removeprefix("x-ms-meta-")
            if not key:
                raise BadRequest("A metadata header has no name.", code="EmptyMetadataKey")
            if not _METADATA_NAME.fullmatch(key):
                raise BadRequest(
                    f"Metadata names are identifiers (letters, digits, underscores); {key!r} is none.",
                    code="InvalidMetadata",
                )
            found[key] = value.strip()
    if sum(len(key) + len(value) for key, value in found.items()) > MAX_METADATA_BYTES:
        raise BadRequest(f"Metadata has at most {MAX_METADATA_BYTES} bytes.", code="MetadataTooLarge")
    return found


def tags_of(headers: Mapping[str, str]) -> dict[str, str]:
    """``x-ms-tags`` of a request."""
    return dict(parse_qsl(headers.get("x-ms-tags", ""), keep_blank_values=True))


def md5_of(headers: Mapping[str, str], name: str) -> bytes | None:
    """A header with the Base64 of an MD5. Raises BadRequest (InvalidMd5)."""
    value = headers.get(name)
    if not value:
        return None
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 16:
        raise BadRequest(f"The header {name} is not the Base64 of an MD5.", code="InvalidMd5", target=name)
    return digest


def blob_headers_of(headers: Mapping[str, str], *, default_type: str | None = None) -> BlobHeaders:
    """The ``x-ms-blob-*`` content headers of a request, else the plain ones where Azure takes them."""
    get = headers.get
    return BlobHeaders(
        content_type=get("x-ms-blob-content-type") or default_type,
        content_encoding=get("x-ms-blob-content-encoding"),
        content_language=get("x-ms-blob-content-language"),
        content_disposition=get("x-ms-blob-content-disposition"),
        cache_control=get("x-ms-blob-cache-control"),
        content_md5=md5_of(headers, "x-ms-blob-content-md5"),
    )


def version_headers(etag: str, modified_at: float) -> dict[str, str]:
    """``ETag`` and ``Last-Modified``."""
    return {"ETag": f'"{etag}"', "Last-Modified": http_date(modified_at)}


def written_headers(blob: BlobProperties) -> dict[str, str]:
    """What answers a write to a blob."""
    return {**version_headers(blob.etag, blob.modified_at), "x-ms-request-server-encrypted": "false"}


def property_headers(blob: BlobProperties) -> dict[str, str]:
    """Headers that describe a blob to its reader."""
    headers = {
        **version_headers(blob.etag, blob.modified_at),
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": blob.kind,
        "x-ms-creation-time": http_date(blob.created_at),
        "x-ms-lease-status": "unlocked",
        "x-ms-lease-state": "available",
        "x-ms-server-encrypted": "false",
        # Blobs are users' files: what a browser shows of them must not act in the name of this site.
        "Content-Security-Policy": "sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    for name, value in (
        ("Content-Type", blob.content_type),
        ("Content-Encoding", blob.content_encoding),
        ("Content-Language", blob.content_language),
        ("Content-Disposition", blob.content_disposition),
        ("Cache-Control", blob.cache_control),
    ):
        if value:
            headers[name] = header_text(value)
    if blob.content_md5:
        headers["Content-MD5"] = base64.b64encode(blob.content_md5).decode()
    if blob.kind == "AppendBlob":
        headers["x-ms-blob-committed-block-count"] = str(blob.append_count)
    else:
        headers["x-ms-access-tier"] = "Hot"
        headers["x-ms-access-tier-inferred"] = "true"
    if blob.tags:
        headers["x-ms-tag-count"] = str(len(blob.tags))
    headers.update(metadata_headers(blob.metadata))
    return headers


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """``x-ms-meta-*`` for an answer."""
    return {f"x-ms-meta-{key}": header_text(value) for key, value in metadata.items()}


def header_text(value: str) -> str:
    """``value`` as far as a header can carry it (what came in a header always can)."""
    return _NOT_HEADER.sub("?", value)


def range_of(headers: Mapping[str, str], size: int) -> tuple[int, int] | None:
    """The byte range asked for as (start, end not included); None for the whole blob. Raises InvalidRange."""
    text = headers.get("x-ms-range") or headers.get("range")
    match = re.fullmatch(r"\s*bytes=(\d*)-(\d*)\s*", text or "")
    if match is None or match.group() == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        # The last so many bytes.
        start, end = max(0, size - int(last or 0)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise InvalidRange(size)
    return start, end


# --- XML


def element(name: str, value: str | int | None) -> str:
    """``<name>value</name>``, empty for None."""
    return f"<{name} />" if value is None else f"<{name}>{escape(str(value))}</{name}>"


def name_element(name: str) -> str:
    """A ``<Name>``; names that XML can not hold are percent-encoded and say so."""
    if _NOT_XML.search(name):
        return f'<Name Encoded="true">{quote(name, safe="/")}</Name>'
    return f"<Name>{escape(name)}</Name>"


def xml_response(body: str, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An XML answer."""
    return Response(
        ('<?xml version="1.0" encoding="utf-8"?>' + body).encode(),
        status_code=status,
        headers=headers,
        media_type="application/xml",
    )


def error_response(error: NoribaError, request_id: str, now: float, base_url: str) -> Response:
    """An error in Blob Storage's form."""
    headers = {"x-ms-error-code": error.code}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = "1"
    if isinstance(error, InvalidRange):
        headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, NotModified):
        return Response(status_code=304, headers=headers)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = (
            f"Bearer authorization_uri={base_url}/login/common resource_id=https://storage.azure.com"
        )
    time = dt.datetime.fromtimestamp(now, dt.UTC).isoformat().replace("+00:00", "Z")
    message = f"{_NOT_XML.sub('?', error.message)}\nRequestId:{request_id}\nTime:{time}"
    detail = (error.info or {}).get("detail")
    body = element("Code", error.code) + element("Message", message)
    if detail:
        body += element("AuthenticationErrorDetail", str(detail))
    return xml_response(f"<Error>{body}</Error>", status=error.status, headers=headers)


# --- bodies


class BlobResponse(Response):
    """An answer whose body comes in chunks of known total length. It ends when the client goes."""

    def __init__(
        self, chunks: AsyncIterator[bytes], size: int, *, status: int, headers: dict[str, str]
    ) -> None:
        super().__init__(status_code=status, headers={**headers, "Content-Length": str(size)})
        self._chunks = chunks
        self._size = size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # The server drops what is sent after a disconnect without telling; for long bodies we ask.
        gone: asyncio.Task[Any] | None = None
        if self._size > _WATCH_BYTES:
            gone = asyncio.ensure_future(_until_gone(receive))
        try:
            if scope["method"] != "HEAD":
                async for chunk in self._chunks:
                    if gone is not None and gone.done():
                        return
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if gone is not None:
                gone.cancel()
            close = getattr(self._chunks, "aclose", None)
            if close is not None:
                await close()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
