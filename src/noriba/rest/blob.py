"""Blob Storage's REST API: from a request to its operation, and from errors to Azure's XML (wire.md 2.3-2.6).

1 address      account, container, name from the path
2 operation    by method, level of the resource, and the query's ``comp`` and ``restype``
3 admit        SAS, shared key or bearer token
4 handle       the operation
5 answer       with the headers that all answers have
"""

from __future__ import annotations

import re
import uuid

from starlette.responses import Response

from noriba.models.errors import BadRequest, MethodNotAllowed, NoribaError
from noriba.rest import blob_batch, blob_blocks, blob_containers, blob_copy, blob_read, blob_write
from noriba.rest.blob_request import BlobRequest, Operation, parse_address, raw_path
from noriba.rest.blob_wire import VERSION, error_response
from noriba.rest.call import Call
from noriba.rest.router import SELF, Route, Routes

routes = Routes()
_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH")

# (method, level, restype, comp) -> operation. Levels: s(ervice), c(ontainer), o(bject).
_OPERATIONS: dict[tuple[str, str, str, str], Operation] = {}
for _module in (blob_containers, blob_read, blob_write, blob_blocks, blob_copy, blob_batch):
    _OPERATIONS.update(_module.OPERATIONS)

_UNSUPPORTED = {
    "acl": "access policies",
    "lease": "leases",
    "snapshot": "snapshots",
    "undelete": "soft delete",
    "immutabilitypolicies": "immutability policies",
    "legalhold": "legal holds",
    "page": "page blobs",
    "pagelist": "page blobs",
    "query": "queries on a blob's content",
    "userdelegationkey": "user delegation keys",
    "blobs": "finding blobs by tags",
    "incrementalcopy": "incremental copies",
    "rename": "renaming containers",
    "expiry": "expiry times",
}


class NotSupported(NoribaError):
    """501: Azure has it, this server does not."""

    status = 501
    default_code = "NotImplemented"


async def handle(call: Call) -> Response:
    """Any request on the blob plane."""
    request_id = str(uuid.uuid4())
    try:
        request = BlobRequest(call, parse_address(raw_path(call)))
        operation = _operation(request)
        await request.admit(operation)
        response = await operation.handler(request)
    except NoribaError as error:
        response = error_response(error, request_id, call.services.clock(), call.services.base_url)
    headers = call.request.headers
    response.headers["x-ms-request-id"] = request_id
    response.headers["x-ms-version"] = headers.get("x-ms-version") or VERSION
    client_id = headers.get("x-ms-client-request-id")
    if client_id:
        response.headers["x-ms-client-request-id"] = client_id
    return response


def _operation(request: BlobRequest) -> Operation:
    level = "o" if request.name else "c" if request.container else "s"
    restype, comp = request.query.get("restype", "").lower(), request.query.get("comp", "").lower()
    if level == "o":
        restype = "" if restype != "account" else restype
    if request.query.keys() & {"resource", "action"}:
        raise NotSupported("The Data Lake API is not supported; use the blob endpoint of the account.")
    for unsupported in ("snapshot", "versionid"):
        if request.query.get(unsupported) and comp != unsupported:
            raise NotSupported("Snapshots and versions of blobs are not supported.")
    found = _OPERATIONS.get((request.method, level, restype, comp))
    if found is not None:
        return found
    if comp in _UNSUPPORTED:
        raise NotSupported(f"This server does not support {_UNSUPPORTED[comp]}.")
    if any(key[1:] == (level, restype, comp) for key in _OPERATIONS):
        raise MethodNotAllowed(
            f"{request.method} is not an operation of this resource.", code="UnsupportedHttpVerb"
        )
    raise BadRequest(
        f"There is no operation {request.method} with comp='{comp}' and restype='{restype}' on this kind of resource.",
        code="InvalidQueryParameterValue",
    )


for _method in _METHODS:
    routes.add(_method, "/blob/{rest:path}", access=SELF)(handle)

_REGISTRY_CONTAINER = re.compile(
    r"/(reg-[a-z0-9-]{1,59}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(/.*)?", re.DOTALL
)


def registry_route(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """The route of ``/{container}/…`` for paths that no other route knows: registries' containers (wire.md 2.6)."""
    if method in _METHODS and _REGISTRY_CONTAINER.fullmatch(path):
        return Route(method, "/{registry container}", handle, SELF, "read"), {}
    return None
