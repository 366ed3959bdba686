"""The ASGI application: the one path that every request takes.

1 route          which handler, or 404/405
2 authenticate   bearer token -> principal (unless the route is public or checks for itself)
3 authorise      the path's workspace and the caller's role in it
4 handle         the route's handler
5 answer         JSON, or the Azure error envelope; one log line and one count, whatever happened
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from noriba import metrics
from noriba.models.errors import Forbidden, MethodNotAllowed, NoribaError
from noriba.rest.authentication import authenticate
from noriba.rest.call import Call
from noriba.rest.errors import error_response
from noriba.rest.router import MEMBER, PUBLIC, SELF, Route, Router
from noriba.services import Services

log = structlog.get_logger("noriba.rest")
_encode = msgspec.json.Encoder().encode


class Application:
    """ASGI application over the services."""

    def __init__(self, services: Services, router: Router) -> None:
        self.services = services
        self.router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        request = Request(scope, receive, send)
        request_id = request.headers.get("x-ms-client-request-id") or secrets.token_hex(8)
        route_path = "-"
        response: Response
        try:
            route, params = self._route(scope["method"], scope["path"])
            route_path = route.path
            call = Call(request, self.services, params)
            await self._admit(call, route)
            response = _as_response(await route.handler(call))
        except NoribaError as error:
            response = error_response(error, request_id)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception:
            log.exception("request failed", method=scope["method"], route=route_path, request_id=request_id)
            response = error_response(
                NoribaError(
                    f"The server failed on this request; its log has the details under {request_id}."
                ),
                request_id,
            )
        response.headers.setdefault("x-ms-request-id", request_id)
        try:
            await response(scope, receive, send)
        finally:
            elapsed_s = time.perf_counter() - started
            metrics.observe_request(scope["method"], route_path, response.status_code, elapsed_s)
            log.debug(
                "request",
                method=scope["method"],
                route=route_path,
                status=response.status_code,
                elapsed_ms=round(elapsed_s * 1000, 2),
                request_id=request_id,
            )

    def _route(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        try:
            return self.router.match(method, path)
        except MethodNotAllowed:
            if method != "HEAD":
                raise
            # HEAD is GET without the body (the server drops it).
            return self.router.match("GET", path)

    async def _admit(self, call: Call, route: Route) -> None:
        if route.access in (PUBLIC, SELF):
            return
        call.principal = await authenticate(call)
        if route.access != MEMBER:
            return
        params = call.params
        # A caller without a role learns only that it has none, not which workspaces exist.
        try:
            workspace = await self.services.workspaces.find(
                params["sub"], params["group"], params["workspace"]
            )
        except NoribaError:
            if not call.principal.roles:
                raise Forbidden(_no_role(call, params["workspace"])) from None
            raise
        if not call.principal.may(route.action, workspace.id):
            raise Forbidden(_no_role(call, workspace.name), target=workspace.name)
        call.workspace = workspace


def _no_role(call: Call, workspace: str) -> str:
    return (
        f"'{call.principal.name}' has no role in workspace '{workspace}' that allows this. "
        "Ask an owner of the workspace for one."
    )


def _as_response(result: Any) -> Response:
    """A handler returns a Response, a JSON value (200), (status, JSON value) or None (204)."""
    if isinstance(result, Response):
        return result
    status = 200
    if isinstance(result, tuple):
        status, result = result
    if result is None:
        return Response(status_code=204 if status == 200 else status)
    return Response(_encode(result), status_code=status, media_type="application/json")


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
