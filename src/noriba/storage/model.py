"""What the blob store speaks of: containers, blobs, conditions, and its limits and errors."""

from __future__ import annotations

import unicodedata
from typing import Literal

import msgspec

from noriba.models.errors import BadRequest, Conflict, NoribaError, NotFound, PreconditionFailed

BlobKind = Literal["BlockBlob", "AppendBlob"]

INLINE_BYTES = 16 * 1024
"""Blobs up to this size stand in the database: no file, durable with the group commit."""
PIECE_BYTES = 4 * 1024 * 1024
"""Larger ones are cut into objects of this size."""
MAX_NAME_CHARACTERS = 1024
MAX_NAME_BYTES = 2400
"""Names are keys of an index; PostgreSQL takes no longer ones."""


class InvalidRange(NoribaError):
    """416: no byte of the range exists. ``size`` is the blob's."""

    status = 416
    default_code = "InvalidRange"

    def __init__(self, size: int) -> None:
        super().__init__(f"The range starts beyond the end of the blob, which has {size} bytes.")
        self.size = size


class NotModified(NoribaError):
    """304: the reader has it already."""

    status = 304
    default_code = "ConditionNotMet"


class BlobProperties(msgspec.Struct, frozen=True, kw_only=True):
    """A blob without its bytes. Sizes are bytes, times UTC seconds; ``etag`` is without quotes."""

    name: str
    kind: BlobKind = "BlockBlob"
    content_id: int
    size: int
    etag: str
    content_type: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    content_disposition: str | None = None
    cache_control: str | None = None
    content_md5: bytes | None = None
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    append_count: int = 0
    created_at: float
    modified_at: float
    committed: bool = True
    """False for a name that has uncommitted blocks only."""


class ContainerProperties(msgspec.Struct, frozen=True, kw_only=True):
    """A container."""

    name: str
    etag: str
    metadata: dict[str, str] = {}
    created_at: float
    modified_at: float


class BlobHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The content headers that a writer sets and every reader gets back."""

    content_type: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    content_disposition: str | None = None
    cache_control: str | None = None
    content_md5: bytes | None = None


class BlobPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a listing, in order of name: blobs and, with a delimiter, prefixes. ``marker`` starts the next."""

    blobs: list[BlobProperties]
    prefixes: list[str] = []
    marker: str | None = None


class Segment(msgspec.Struct, frozen=True):
    """Bytes ``start`` to ``start + size`` of a content: an object's, or ``data`` itself."""

    start: int
    size: int
    key: str | None = None
    data: bytes | None = None


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions of a request (RFC 9110): entity tags without quotes, ``*`` for any; times in UTC seconds."""

    if_match: tuple[str, ...] = ()
    if_none_match: tuple[str, ...] = ()
    if_modified_since: float | None = None
    if_unmodified_since: float | None = None

    def check_write(self, blob: BlobProperties | None) -> None:
        """Raise PreconditionFailed or Conflict unless a write to ``blob`` (None: no such blob) may go on."""
        if blob is None:
            # An absent blob has no entity tag to match and no time to compare with.
            if self.if_match:
                raise _not_met()
            return
        if "*" in self.if_none_match:
            raise Conflict(
                "The blob exists already. Leave out If-None-Match: * to overwrite it.",
                code="BlobAlreadyExists",
            )
        if self._fails(blob):
            raise _not_met()

    def check_read(self, blob: BlobProperties) -> None:
        """Raise NotModified or PreconditionFailed unless a read of ``blob`` may go on."""
        if (self.if_match and not _matches(self.if_match, blob.etag)) or (
            not self.if_match
            and self.if_unmodified_since is not None
            and int(blob.modified_at) > self.if_unmodified_since
        ):
            raise _not_met()
        if self.if_none_match:
            if _matches(self.if_none_match, blob.etag):
                raise NotModified("The blob has not changed.")
        elif self.if_modified_since is not None and int(blob.modified_at) <= self.if_modified_since:
            raise NotModified("The blob has not changed.")

    def _fails(self, blob: BlobProperties) -> bool:
        # Dates on the wire have whole seconds.
        modified_at = int(blob.modified_at)
        return bool(
            (self.if_match and not _matches(self.if_match, blob.etag))
            or (self.if_none_match and _matches(self.if_none_match, blob.etag))
            or (self.if_modified_since is not None and modified_at <= self.if_modified_since)
            or (self.if_unmodified_since is not None and modified_at > self.if_unmodified_since)
        )


NO_CONDITIONS = Conditions()


def _matches(tags: tuple[str, ...], etag: str) -> bool:
    return "*" in tags or etag in tags


def _not_met() -> PreconditionFailed:
    return PreconditionFailed(
        "The condition given in the request's conditional headers is not met.", code="ConditionNotMet"
    )


def check_blob_name(name: str) -> None:
    """Raise BadRequest unless ``name`` can be a blob's. Names are data: anything but NUL and broken Unicode."""
    if not name:
        raise BadRequest("The blob has no name.", code="InvalidUri")
    if "\0" in name or any(unicodedata.category(c) == "Cs" for c in name if ord(c) >= 0xD800):
        raise BadRequest(
            "The blob's name has a character that names can not have (NUL or half of a surrogate pair).",
            code="InvalidResourceName",
        )
    if len(name) > MAX_NAME_CHARACTERS or len(name.encode()) > MAX_NAME_BYTES:
        raise BadRequest(
            f"The blob's name is longer than {MAX_NAME_CHARACTERS} characters (or {MAX_NAME_BYTES} bytes).",
            code="OutOfRangeInput",
        )


def check_container_name(name: str) -> None:
    """Raise BadRequest unless ``name`` is 3-63 of a-z, 0-9 and single hyphens, or ``$root``, ``$web``, ``$logs``."""
    if name in ("$root", "$web", "$logs"):
        return
    good = (
        3 <= len(name) <= 63
        and name.isascii()
        and name == name.lower()
        and all(part.isalnum() for part in name.split("-"))
    )
    if not good:
        raise BadRequest(
            "A container's name has 3 to 63 lower-case letters, digits and single hyphens between them.",
            code="InvalidResourceName",
        )


def no_container(name: str) -> NotFound:
    """The error for a container that does not exist."""
    return NotFound(f"The container '{name}' does not exist.", code="ContainerNotFound")


def no_blob(name: str) -> NotFound:
    """The error for a blob that does not exist."""
    return NotFound(f"The blob '{name}' does not exist.", code="BlobNotFound")
