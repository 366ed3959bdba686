"""Bodies of writes on the blob plane: checked on their way in; and what a writer may overwrite."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import AsyncIterator

import anycrc
import msgspec

from noriba.models.errors import BadRequest, Conflict, Forbidden
from noriba.rest.blob_request import BlobRequest
from noriba.rest.blob_wire import conditions_of, md5_of
from noriba.storage.model import Conditions

_ALWAYS_HASH_BYTES = 4 * 1024 * 1024
_HASH_BATCH_BYTES = 256 * 1024
# The CRC that Azure Storage uses.
_crc64 = anycrc.Model("CRC64-NVME").calc


class Hashed:
    """A body that is checked against ``Content-MD5`` and ``x-ms-content-crc64`` when they were sent.

    Raises BadRequest at the end of the iteration when they do not match. The CRC costs nothing and is always
    computed; the MD5 only when it was sent, or ``keep_md5`` asks for it and the body is short.
    """

    def __init__(self, request: BlobRequest, limit: int, *, keep_md5: bool = False) -> None:
        if request.headers.get("x-ms-structured-body"):
            raise BadRequest("Structured bodies are not supported.", code="UnsupportedHeader")
        self._expected_md5 = md5_of(request.headers, "content-md5")
        self._expected_crc = _crc_of(request.headers.get("x-ms-content-crc64"))
        self._chunks = request.body(limit)
        length = request.content_length
        wanted = keep_md5 and length is not None and length <= _ALWAYS_HASH_BYTES
        self._hash = hashlib.md5(usedforsecurity=False) if wanted or self._expected_md5 else None
        self._crc = 0

    @property
    def md5(self) -> bytes | None:
        """The body's MD5; None when nobody asked and it is long."""
        return self._hash.digest() if self._hash else None

    def headers(self) -> dict[str, str]:
        """``Content-MD5`` if one was sent, else ``x-ms-content-crc64``, for the answer."""
        if self._expected_md5 is not None:
            return {"Content-MD5": base64.b64encode(self._expected_md5).decode()}
        return {"x-ms-content-crc64": base64.b64encode(self._crc.to_bytes(8, "little")).decode()}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        waiting: list[bytes] = []
        size = 0
        async for chunk in self._chunks:
            self._crc = _crc64(chunk, self._crc)
            if self._hash is not None:
                waiting.append(chunk)
                size += len(chunk)
                if size >= _HASH_BATCH_BYTES:
                    # Hashing lets go of the interpreter; the loop has other requests to serve meanwhile.
                    await asyncio.to_thread(self._hash.update, b"".join(waiting))
                    waiting, size = [], 0
            yield chunk
        if self._hash is not None:
            self._hash.update(b"".join(waiting))
        if self._expected_md5 is not None and self.md5 != self._expected_md5:
            raise _damaged("Content-MD5", "Md5Mismatch")
        if self._expected_crc is not None and self._crc != self._expected_crc:
            raise _damaged("x-ms-content-crc64", "Crc64Mismatch")


def _crc_of(value: str | None) -> int | None:
    if not value:
        return None
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 8:
        raise BadRequest(
            "The header x-ms-content-crc64 is not the Base64 of a CRC-64.", code="InvalidHeaderValue"
        )
    return int.from_bytes(digest, "little")


def _damaged(header: str, code: str) -> BadRequest:
    return BadRequest(
        f"The body does not match {header}: it was damaged on the way. Send it again.", code=code
    )


def write_conditions(request: BlobRequest) -> Conditions:
    """The request's conditions; who may create only may not overwrite."""
    conditions = conditions_of(request.headers)
    if not request.may_overwrite:
        conditions = msgspec.structs.replace(conditions, if_none_match=("*",))
    return conditions


def overwrite_refused(request: BlobRequest, error: Conflict) -> Exception:
    """What to raise for a condition that ``write_conditions`` added."""
    if request.may_overwrite or error.code != "BlobAlreadyExists":
        return error
    return Forbidden(
        "The signature allows to create blobs, not to overwrite them.", code="UnauthorizedBlobOverwrite"
    )
