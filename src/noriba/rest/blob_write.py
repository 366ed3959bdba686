"""Writing blobs: Put Blob, Append Block, Delete, metadata, content headers, tags."""

from __future__ import annotations

from xml.etree import ElementTree

import msgspec
from starlette.responses import Response

from noriba.models.errors import BadRequest, Conflict
from noriba.rest import blob_copy
from noriba.rest.blob_body import Hashed, overwrite_refused, write_conditions
from noriba.rest.blob_request import BlobRequest, Operation
from noriba.rest.blob_wire import (
    bad_header,
    blob_headers_of,
    conditions_of,
    metadata_of,
    tags_of,
    version_headers,
    written_headers,
)
from noriba.storage import appending, editing
from noriba.storage.model import BlobKind
from noriba.storage.uploads import fill

MAX_PUT_BYTES = 5000 * 1024 * 1024
MAX_APPEND_BYTES = 100 * 1024 * 1024
_KINDS: dict[str, BlobKind] = {"blockblob": "BlockBlob", "appendblob": "AppendBlob"}


async def put_blob(request: BlobRequest) -> Response:
    """Put Blob (block and append blobs), Put Blob From URL, Copy Blob."""
    if request.headers.get("x-ms-copy-source"):
        return await blob_copy.copy_blob(request)
    sent_kind = request.headers.get("x-ms-blob-type", "")
    if not sent_kind:
        raise BadRequest(
            "The header x-ms-blob-type is missing; it says BlockBlob or AppendBlob.",
            code="MissingRequiredHeader",
            target="x-ms-blob-type",
        )
    kind = _KINDS.get(sent_kind.lower())
    if kind is None:
        raise BadRequest(
            f"Blobs of type {sent_kind} are not supported; BlockBlob and AppendBlob are.",
            code="InvalidHeaderValue",
            target="x-ms-blob-type",
        )
    if kind == "AppendBlob" and request.content_length:
        raise BadRequest("An append blob is made empty; then append to it.", code="InvalidHeaderValue")
    conditions = write_conditions(request)
    sent = blob_headers_of(
        request.headers, default_type=request.headers.get("content-type") or "application/octet-stream"
    )
    metadata, tags = metadata_of(request.headers), tags_of(request.headers)
    try:
        await request.blobs.check_before_upload(*request.target, conditions)
        body = Hashed(request, MAX_PUT_BYTES, keep_md5=True)
        async with request.blobs.upload() as upload:
            await fill(upload, aiter(body))
            kept = sent
            if kind == "BlockBlob" and sent.content_md5 is None:
                kept = msgspec.structs.replace(sent, content_md5=body.md5)
            blob = await request.blobs.commit(
                upload,
                request.target,
                headers=kept,
                metadata=metadata,
                tags=tags,
                kind=kind,
                conditions=conditions,
            )
    except Conflict as error:
        raise overwrite_refused(request, error) from error
    return Response(status_code=201, headers={**written_headers(blob), **body.headers()})


async def append_block(request: BlobRequest) -> Response:
    """Append Block."""
    position = _length_header(request, "x-ms-blob-condition-appendpos")
    max_size = _length_header(request, "x-ms-blob-condition-maxsize")
    body: Hashed | None = None
    if request.headers.get("x-ms-copy-source"):
        chunks = await blob_copy.source_chunks(request, MAX_APPEND_BYTES)
    else:
        body = Hashed(request, MAX_APPEND_BYTES)
        chunks = aiter(body)
        if request.content_length == 0:
            raise BadRequest(
                "There is nothing to append.", code="InvalidHeaderValue", target="Content-Length"
            )
    blob, start = await appending.append(
        request.blobs,
        *request.target,
        chunks,
        position=position,
        max_size=max_size,
        conditions=conditions_of(request.headers),
    )
    headers = {
        **written_headers(blob),
        "x-ms-blob-append-offset": str(start),
        "x-ms-blob-committed-block-count": str(blob.append_count),
    }
    return Response(status_code=201, headers={**headers, **(body.headers() if body else {})})


def _length_header(request: BlobRequest, name: str) -> int | None:
    value = request.headers.get(name)
    if value is None:
        return None
    if not value.isdigit():
        raise bad_header(name, value)
    return int(value)


async def delete_blob(request: BlobRequest) -> Response:
    """Delete Blob. There are no snapshots, so ``x-ms-delete-snapshots`` asks for nothing more."""
    if request.headers.get("x-ms-delete-snapshots", "").lower() == "only":
        await request.blobs.get(*request.target)
        return Response(status_code=202)
    await request.blobs.delete(*request.target, conditions=conditions_of(request.headers))
    return Response(status_code=202, headers={"x-ms-delete-type-permanent": "true"})


async def set_metadata(request: BlobRequest) -> Response:
    """Set Blob Metadata."""
    blob = await editing.set_metadata(
        request.blobs,
        *request.target,
        metadata_of(request.headers),
        conditions=conditions_of(request.headers),
    )
    return Response(headers=written_headers(blob))


async def set_properties(request: BlobRequest) -> Response:
    """Set Blob Properties: the content headers."""
    blob = await editing.set_headers(
        request.blobs,
        *request.target,
        blob_headers_of(request.headers),
        conditions=conditions_of(request.headers),
    )
    return Response(headers=version_headers(blob.etag, blob.modified_at))


async def set_tags(request: BlobRequest) -> Response:
    """Set Blob Tags."""
    try:
        root = ElementTree.fromstring(await request.small_body(64 * 1024))
    except ElementTree.ParseError as error:
        raise BadRequest(f"The body is not valid XML: {error}", code="InvalidXmlDocument") from error
    tags = {tag.findtext("Key", ""): tag.findtext("Value", "") for tag in root.iter("Tag")}
    if len(tags) > 10 or not all(0 < len(key) <= 128 and len(value) <= 256 for key, value in tags.items()):
        raise BadRequest(
            "A blob has up to 10 tags, with keys of 1-128 and values of 0-256 characters.", code="InvalidTags"
        )
    await editing.set_tags(request.blobs, *request.target, tags, conditions=conditions_of(request.headers))
    return Response(status_code=204)


async def set_tier(request: BlobRequest) -> Response:
    """Set Blob Tier: all blobs are hot here, so cooler ones are accepted and make no difference."""
    await request.blobs.get(*request.target)
    return Response()


OPERATIONS = {
    ("PUT", "o", "", ""): Operation(put_blob, "cw", "o", "write"),
    ("PUT", "o", "", "appendblock"): Operation(append_block, "aw", "o", "write"),
    ("DELETE", "o", "", ""): Operation(delete_blob, "d", "o", "write"),
    ("PUT", "o", "", "metadata"): Operation(set_metadata, "w", "o", "write"),
    ("PUT", "o", "", "properties"): Operation(set_properties, "w", "o", "write"),
    ("PUT", "o", "", "tags"): Operation(set_tags, "t", "o", "write"),
    ("PUT", "o", "", "tier"): Operation(set_tier, "w", "o", "write"),
}
