"""Errors on the wire: the Azure Resource Manager envelope (wire.md 9)."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from noriba.models.errors import MethodNotAllowed, NoribaError, Unauthenticated, Unavailable


def envelope(error: NoribaError, request_id: str) -> dict[str, Any]:
    """``{"error": {"code", "message", "target", "details", …}}`` for an error."""
    body: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "target": error.target,
        "details": [{"code": code, "message": message} for code, message in error.details],
        "additionalInfo": [{"type": "RequestId", "info": {"value": request_id}}],
    }
    if error.info:
        body["additionalInfo"].append({"type": "Detail", "info": error.info})
    return {"error": body}


def error_response(error: NoribaError, request_id: str) -> Response:
    """The response for an error."""
    headers = {"x-ms-request-id": request_id, "x-ms-error-code": error.code}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        headers["Retry-After"] = "1"
    if isinstance(error, MethodNotAllowed) and error.info:
        headers["Allow"] = ", ".join(error.info["allow"])
    return Response(
        msgspec.json.encode(envelope(error, request_id)),
        status_code=error.status,
        media_type="application/json",
        headers=headers,
    )
