"""Long-running operations that clients poll (wire.md, rule 9)."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import sqlalchemy as sa
from starlette.responses import Response

from noriba.database.tables import operations as table
from noriba.models.errors import Forbidden, NotFound
from noriba.rest.call import Call
from noriba.rest.documents import PROVIDER, iso
from noriba.rest.router import Routes

routes = Routes()

RETRY_AFTER_S = "1"
_STATUS = f"/subscriptions/{{sub}}/providers/{PROVIDER}/locations/{{location}}/operationsStatus/{{id}}"
_RESULT = f"/subscriptions/{{sub}}/providers/{PROVIDER}/locations/{{location}}/operationResults/{{id}}"


def insert_operation(
    connection: sa.Connection, workspace_id: str | None, *, now: float, status: str = "Succeeded"
) -> str:
    """Record an operation; returns its id."""
    operation = str(uuid.uuid4())
    connection.execute(
        table.insert().values(
            id=operation, workspace_id=workspace_id, status=status, error=None, location=None, created_at=now
        )
    )
    return operation


def operation_headers(call: Call, subscription: str, location: str, operation: str) -> dict[str, str]:
    """What tells a client where to ask how an operation goes."""
    status = _STATUS.format(sub=subscription, location=location, id=operation)
    result = _RESULT.format(sub=subscription, location=location, id=operation)
    return {
        "Azure-AsyncOperation": f"{call.services.base_url}{status}",
        "Location": f"{call.services.base_url}{result}",
        "Retry-After": RETRY_AFTER_S,
    }


def accepted(status: int, document: Any, headers: dict[str, str]) -> Response:
    """An answer with headers."""
    content = b"" if document is None else msgspec.json.encode(document)
    return Response(content, status_code=status, headers=headers, media_type="application/json")


@routes.get(_STATUS)
async def operation_status(call: Call) -> Any:
    """How an operation goes: ``InProgress``, ``Succeeded`` or ``Failed``."""
    row = await _load(call)
    return {
        "id": call.request.url.path,
        "name": row.id,
        "status": row.status,
        "startTime": iso(row.created_at),
        "error": row.error,
    }


@routes.get(_RESULT)
async def operation_result(call: Call) -> Any:
    """202 while an operation goes on, 204 when it is over."""
    row = await _load(call)
    if row.status == "InProgress":
        return accepted(202, None, {"Location": str(call.request.url), "Retry-After": RETRY_AFTER_S})
    return None


async def _load(call: Call) -> sa.Row[Any]:
    operation = call.params["id"]
    row = await call.services.database.read(
        lambda connection: connection.execute(sa.select(table).where(table.c.id == operation)).one_or_none()
    )
    if row is None:
        raise NotFound("There is no such operation.", code="OperationNotFound")
    if row.workspace_id and not call.principal.may("read", row.workspace_id):
        raise Forbidden("You have no role in the workspace of this operation.")
    return row
