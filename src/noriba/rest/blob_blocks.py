"""Put Block, Put Block List, Get Block List."""

from __future__ import annotations

from typing import cast
from xml.etree import ElementTree

from starlette.responses import Response

from noriba.models.errors import BadRequest, Conflict
from noriba.rest import blob_copy
from noriba.rest.blob_body import Hashed, overwrite_refused, write_conditions
from noriba.rest.blob_request import BlobRequest, Operation
from noriba.rest.blob_wire import (
    blob_headers_of,
    element,
    metadata_of,
    tags_of,
    version_headers,
    written_headers,
    xml_response,
)
from noriba.storage import blocks

MAX_BLOCK_BYTES = 4000 * 1024 * 1024
_LIST_LIMIT_BYTES = 16 * 1024 * 1024


async def put_block(request: BlobRequest) -> Response:
    """Put Block, Put Block From URL."""
    block_id = request.query.get("blockid", "")
    if not block_id:
        raise BadRequest(
            "The query parameter blockid is missing.", code="MissingRequiredQueryParameter", target="blockid"
        )
    # An unencoded "+" of Base64 arrives as a space.
    block_id = block_id.replace(" ", "+")
    blocks.check_block_id(block_id)
    headers: dict[str, str] = {}
    if request.headers.get("x-ms-copy-source"):
        chunks = await blob_copy.source_chunks(request, MAX_BLOCK_BYTES)
        await blocks.put_block(request.blobs, *request.target, block_id, chunks)
    else:
        if request.content_length == 0:
            raise BadRequest("A block is not empty.", code="InvalidHeaderValue", target="Content-Length")
        body = Hashed(request, MAX_BLOCK_BYTES)
        await blocks.put_block(request.blobs, *request.target, block_id, aiter(body))
        headers = body.headers()
    return Response(status_code=201, headers={**headers, "x-ms-request-server-encrypted": "false"})


async def put_block_list(request: BlobRequest) -> Response:
    """Put Block List."""
    body = Hashed(request, _LIST_LIMIT_BYTES)
    entries = _entries(b"".join([chunk async for chunk in body]))
    try:
        blob = await blocks.put_block_list(
            request.blobs,
            *request.target,
            entries,
            headers=blob_headers_of(request.headers, default_type="application/octet-stream"),
            metadata=metadata_of(request.headers),
            tags=tags_of(request.headers),
            conditions=write_conditions(request),
        )
    except Conflict as error:
        raise overwrite_refused(request, error) from error
    return Response(status_code=201, headers={**written_headers(blob), **body.headers()})


def _entries(body: bytes) -> list[tuple[blocks.Source, str]]:
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise BadRequest(f"The block list is not valid XML: {error}", code="InvalidXmlDocument") from error
    entries: list[tuple[blocks.Source, str]] = []
    for child in root:
        if child.tag not in ("Latest", "Committed", "Uncommitted"):
            raise BadRequest(f"A block list has no element {child.tag}.", code="InvalidXmlDocument")
        entries.append((cast(blocks.Source, child.tag), (child.text or "").strip()))
    return entries


async def get_block_list(request: BlobRequest) -> Response:
    """Get Block List."""
    wanted = request.query.get("blocklisttype", "committed").lower()
    if wanted not in ("committed", "uncommitted", "all"):
        raise BadRequest(
            "blocklisttype is committed, uncommitted or all.",
            code="InvalidQueryParameterValue",
            target="blocklisttype",
        )
    lists = await blocks.block_lists(request.blobs, *request.target)
    body = ""
    if wanted != "uncommitted":
        body += f"<CommittedBlocks>{_blocks(lists.committed)}</CommittedBlocks>"
    if wanted != "committed":
        body += f"<UncommittedBlocks>{_blocks(lists.uncommitted)}</UncommittedBlocks>"
    headers = {}
    if lists.blob is not None:
        headers = {
            **version_headers(lists.blob.etag, lists.blob.modified_at),
            "x-ms-blob-content-length": str(lists.blob.size),
        }
    return xml_response(f"<BlockList>{body}</BlockList>", headers=headers)


def _blocks(listed: list[tuple[str, int]]) -> str:
    return "".join(
        f"<Block>{element('Name', block_id)}{element('Size', size)}</Block>" for block_id, size in listed
    )


OPERATIONS = {
    ("PUT", "o", "", "block"): Operation(put_block, "cw", "o", "write"),
    ("PUT", "o", "", "blocklist"): Operation(put_block_list, "cw", "o", "write"),
    ("GET", "o", "", "blocklist"): Operation(get_block_list, "r", "o", "read"),
}
