"""Blob Batch: up to 256 deletions (or tier changes) in one multipart request, each admitted for itself."""

from __future__ import annotations

import email
import uuid
from collections.abc import Iterator
from email.message import Message
from http import HTTPStatus
from urllib.parse import parse_qsl

from starlette.responses import Response

from noriba.models.errors import BadRequest, NoribaError
from noriba.rest import blob_write
from noriba.rest.blob_request import Address, BlobRequest, Operation, parse_address, raw_query
from noriba.rest.blob_wire import error_response

MAX_PARTS = 256
_BODY_LIMIT_BYTES = 4 * 1024 * 1024


async def batch(request: BlobRequest) -> Response:
    """Blob Batch. Parts that fail do not fail the others."""
    body = await request.small_body(_BODY_LIMIT_BYTES)
    boundary = f"batchresponse_{uuid.uuid4()}"
    answers = []
    for part in _parts(request, body):
        content_id = part.get("Content-ID", "")
        payload = part.get_payload(decode=True)
        answer = await _one(request, payload if isinstance(payload, bytes) else b"")
        answers.append(
            f"--{boundary}\r\nContent-Type: application/http\r\n".encode()
            + (f"Content-ID: {content_id}\r\n".encode() if content_id else b"")
            + b"\r\n"
            + answer
            + b"\r\n"
        )
    return Response(
        b"".join(answers) + f"--{boundary}--\r\n".encode(),
        status_code=202,
        media_type=f"multipart/mixed; boundary={boundary}",
    )


def _parts(request: BlobRequest, body: bytes) -> list[Message]:
    content_type = request.headers.get("content-type", "")
    message = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode("latin-1") + body)
    parts = message.get_payload()
    if not message.is_multipart() or not isinstance(parts, list):
        raise BadRequest("The body of a batch is multipart/mixed.", code="InvalidInput")
    if len(parts) > MAX_PARTS:
        raise BadRequest(f"A batch has at most {MAX_PARTS} requests.", code="ExceedsMaxBatchRequestCount")
    return [part for part in parts if isinstance(part, Message)]


async def _one(request: BlobRequest, text: bytes) -> bytes:
    services = request.services
    request_id = str(uuid.uuid4())
    try:
        part = _subrequest(request, text.decode("latin-1"))
        operation = _OPERATIONS.get((part.method, part.query.get("comp", "").lower()))
        if operation is None or not part.name:
            raise BadRequest("A batch can delete blobs and set their tier only.", code="InvalidInput")
        await part.admit(operation)
        response = await operation.handler(part)
    except NoribaError as error:
        response = error_response(error, request_id, services.clock(), services.base_url)
    response.headers["x-ms-request-id"] = request_id
    head = f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}\r\n"
    lines = (f"{name}: {value}\r\n" for name, value in response.headers.items())
    return (head + "".join(lines) + "\r\n").encode("latin-1") + bytes(response.body)


def _subrequest(request: BlobRequest, text: str) -> BlobRequest:
    lines = iter(text.lstrip("\r\n").split("\r\n"))
    method, _, rest = next(lines).partition(" ")
    url = rest.rpartition(" ")[0]
    headers = dict(_headers(lines))
    # Clients with a bearer token send it once, with the batch.
    own = request.headers.get("authorization", "")
    if "authorization" not in headers and own.lower().startswith("bearer "):
        headers["authorization"] = own
    path, _, query = url.partition("?")
    part = BlobRequest(
        request.call,
        _address(request, path),
        query={name.lower(): value for name, value in parse_qsl(query, keep_blank_values=True)},
        headers=headers,
    )
    part.method, part.raw_query = method.upper(), raw_query(query)
    # Some clients sign the address that they know and send a part of it.
    part.signed_paths = [path, f"/blob{path}", f"/blob/{request.account}{path}"]
    return part


def _headers(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip().lower(), value.strip()


def _address(request: BlobRequest, path: str) -> Address:
    """Clients leave out of the parts' paths what comes before the account, or before the container."""
    if not path.lower().startswith("/blob/"):
        has_account = parse_address(f"/blob{path}").account == request.account
        path = f"/blob{path}" if has_account else f"/blob/{request.account}/{path.lstrip('/')}"
    address = parse_address(path)
    if address.account != request.account or (request.container and address.container != request.container):
        raise BadRequest("A part of the batch is for another account or container.", code="InvalidInput")
    return address


_OPERATIONS = {
    ("DELETE", ""): blob_write.OPERATIONS["DELETE", "o", "", ""],
    ("PUT", "tier"): blob_write.OPERATIONS["PUT", "o", "", "tier"],
}
# The batch itself needs a valid signature with any permission; each part is checked for what it does.
OPERATIONS = {
    ("POST", "s", "", "batch"): Operation(batch, "rlwacdt", "s", "read"),
    ("POST", "c", "container", "batch"): Operation(batch, "rlwacdt", "c", "read"),
}
