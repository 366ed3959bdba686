"""Copies from a URL of this server: Copy Blob, Put Blob From URL, and the source of Put Block From URL."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, urlsplit

from starlette.responses import Response

from noriba.models.errors import BadRequest, Conflict, NotFound, TooLarge
from noriba.rest.blob_body import overwrite_refused, write_conditions
from noriba.rest.blob_request import BlobRequest, Operation, parse_address, raw_query
from noriba.rest.blob_wire import (
    blob_headers_of,
    conditions_of,
    http_date,
    metadata_of,
    range_of,
    tags_of,
    written_headers,
)
from noriba.storage import editing
from noriba.storage.model import BlobHeaders, Conditions


async def copy_blob(request: BlobRequest) -> Response:
    """Copy Blob, and Put Blob From URL (which names a blob type). Both are done when they answer."""
    source = await _source(request)
    from_url = "x-ms-blob-type" in request.headers
    sent = blob_headers_of(request.headers)
    # Put Blob From URL may give new content headers; Copy Blob takes the source's.
    headers = sent if from_url and sent != BlobHeaders() else None
    metadata = metadata_of(request.headers) or None
    try:
        blob = await editing.copy(
            request.blobs,
            source,
            request.target,
            metadata=metadata,
            tags=tags_of(request.headers),
            headers=headers,
            source_conditions=_source_conditions(request),
            conditions=write_conditions(request),
        )
    except Conflict as error:
        raise overwrite_refused(request, error) from error
    if from_url:
        return Response(status_code=201, headers=written_headers(blob))
    answer = {
        **written_headers(blob),
        "x-ms-copy-id": str(uuid.uuid4()),
        "x-ms-copy-status": "success",
        "x-ms-copy-completion-time": http_date(blob.modified_at),
    }
    return Response(status_code=202, headers=answer)


async def source_chunks(request: BlobRequest, limit: int) -> AsyncIterator[bytes]:
    """The bytes of the source (or the range of ``x-ms-source-range``). Raises TooLarge beyond ``limit`` bytes."""
    account, container, name = await _source(request)
    blob = await request.blobs.get(account, container, name)
    _source_conditions(request).check_read(blob)
    wanted = range_of({"range": request.headers.get("x-ms-source-range", "")}, blob.size)
    start, end = wanted or (0, blob.size)
    if end - start > limit:
        raise TooLarge(f"The source has more than the {limit} bytes that this operation takes.")
    return request.blobs.read(blob, start, end)


def _source_conditions(request: BlobRequest) -> Conditions:
    renamed = {
        name.removeprefix("x-ms-source-"): value
        for name, value in request.headers.items()
        if name.startswith("x-ms-source-if-")
    }
    return conditions_of(renamed)


async def _source(request: BlobRequest) -> tuple[str, str, str]:
    """The source, which the caller may read. Raises BadRequest, NotFound, Forbidden."""
    url = urlsplit(request.headers["x-ms-copy-source"])
    ours = urlsplit(request.services.base_url)
    here = {ours.netloc.lower(), request.headers.get("host", "").lower()}
    if url.netloc.lower() not in here:
        raise BadRequest(
            "Only blobs of this server can be copied from. Download the source and upload it.",
            code="CannotVerifyCopySource",
            target="x-ms-copy-source",
        )
    address = parse_address(url.path)
    if not address.name:
        raise NotFound("The source of the copy is not a blob.", code="CannotVerifyCopySource")
    headers = dict(request.headers)
    if headers.get("x-ms-copy-source-authorization"):
        headers["authorization"] = headers["x-ms-copy-source-authorization"]
    query = {name.lower(): value for name, value in parse_qsl(url.query, keep_blank_values=True)}
    source = BlobRequest(request.call, address, query=query, headers=headers)
    source.raw_query = raw_query(url.query)
    signer = headers.get("authorization", "").partition(" ")[0].lower()
    # A shared key was checked on the request already and opens all of its account.
    if not ("sig" not in query and signer == "sharedkey" and address.account == request.account):
        await source.admit_to("r", "o", "read")
    return address.account, address.container, address.name


async def abort_copy(request: BlobRequest) -> Response:
    """Abort Copy Blob: copies are done at once, so there is none to abort."""
    raise Conflict("No copy of this blob is in progress.", code="NoPendingCopyOperation")


OPERATIONS = {("PUT", "o", "", "copy"): Operation(abort_copy, "w", "o", "write")}
