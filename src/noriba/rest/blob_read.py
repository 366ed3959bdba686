"""Reading blobs: Get Blob, properties, metadata, tags."""

from __future__ import annotations

import base64
import hashlib

from starlette.responses import Response

from noriba.models.errors import BadRequest
from noriba.rest.blob_request import BlobRequest, Operation
from noriba.rest.blob_wire import (
    BlobResponse,
    conditions_of,
    element,
    header_text,
    metadata_headers,
    property_headers,
    range_of,
    version_headers,
    xml_response,
)

_MAX_RANGE_MD5_BYTES = 4 * 1024 * 1024
_OVERRIDES = {
    "rscc": "Cache-Control",
    "rscd": "Content-Disposition",
    "rsce": "Content-Encoding",
    "rscl": "Content-Language",
    "rsct": "Content-Type",
}


async def get_blob(request: BlobRequest) -> Response:
    """Get Blob, whole or a range."""
    blob = await request.blobs.get(*request.target)
    conditions_of(request.headers).check_read(blob)
    headers = property_headers(blob)
    wanted = range_of(request.headers, blob.size)
    start, end = wanted or (0, blob.size)
    status = 200
    if wanted is not None:
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
        md5 = headers.pop("Content-MD5", None)
        if md5:
            headers["x-ms-blob-content-md5"] = md5
    if "sig" in request.query:
        # Only with a signature: it covers these.
        for name, header in _OVERRIDES.items():
            if request.query.get(name):
                headers[header] = header_text(request.query[name])
    chunks = request.blobs.read(blob, start, end)
    if wanted is not None and request.headers.get("x-ms-range-get-content-md5", "").lower() == "true":
        if end - start > _MAX_RANGE_MD5_BYTES:
            raise BadRequest(
                f"The MD5 of a range is given for up to {_MAX_RANGE_MD5_BYTES} bytes.",
                code="InvalidHeaderValue",
            )
        whole = b"".join([chunk async for chunk in chunks])
        headers["Content-MD5"] = base64.b64encode(hashlib.md5(whole, usedforsecurity=False).digest()).decode()
        return Response(whole, status_code=status, headers=headers)
    return BlobResponse(chunks, end - start, status=status, headers=headers)


async def head_blob(request: BlobRequest) -> Response:
    """Get Blob Properties."""
    blob = await request.blobs.get(*request.target)
    conditions_of(request.headers).check_read(blob)
    return Response(headers={**property_headers(blob), "Content-Length": str(blob.size)})


async def get_metadata(request: BlobRequest) -> Response:
    """Get Blob Metadata."""
    blob = await request.blobs.get(*request.target)
    conditions_of(request.headers).check_read(blob)
    return Response(
        headers={**version_headers(blob.etag, blob.modified_at), **metadata_headers(blob.metadata)}
    )


async def get_tags(request: BlobRequest) -> Response:
    """Get Blob Tags."""
    blob = await request.blobs.get(*request.target)
    tags = "".join(
        f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>" for key, value in blob.tags.items()
    )
    return xml_response(f"<Tags><TagSet>{tags}</TagSet></Tags>")


OPERATIONS = {
    ("GET", "o", "", ""): Operation(get_blob, "r", "o", "read"),
    ("HEAD", "o", "", ""): Operation(head_blob, "r", "o", "read"),
    ("GET", "o", "", "metadata"): Operation(get_metadata, "r", "o", "read"),
    ("HEAD", "o", "", "metadata"): Operation(get_metadata, "r", "o", "read"),
    ("GET", "o", "", "tags"): Operation(get_tags, "t", "o", "read"),
}
