"""What a handler is given: one request, who makes it, and the services behind the API."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from noriba.models.errors import BadRequest, NoribaError, TooLarge, Unauthenticated
from noriba.models.principal import Principal
from noriba.models.workspace import Workspace
from noriba.services import Services

_decode_json = msgspec.json.Decoder().decode


class Call:
    """One request on its way through the server."""

    __slots__ = ("_principal", "_workspace", "params", "request", "services")

    def __init__(self, request: Request, services: Services, params: dict[str, str]) -> None:
        self.request = request
        self.services = services
        self.params = params
        self._principal: Principal | None = None
        self._workspace: Workspace | None = None

    @property
    def principal(self) -> Principal:
        """The authenticated caller."""
        if self._principal is None:
            raise Unauthenticated("Sign in first: the request has no valid token.")
        return self._principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        self._principal = principal

    @property
    def has_principal(self) -> bool:
        return self._principal is not None

    @property
    def workspace(self) -> Workspace:
        """The workspace that the path names."""
        if self._workspace is None:
            raise NoribaError("This route has no workspace")
        return self._workspace

    @workspace.setter
    def workspace(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @property
    def query(self) -> dict[str, str]:
        """Query parameters with lower-case names."""
        return {name.lower(): value for name, value in self.request.query_params.items()}

    async def body(self) -> bytes:
        """The whole body. Raises TooLarge when it is more than ``server.max_body_bytes``."""
        limit = self.services.settings.server.max_body_bytes
        declared = self.request.headers.get("content-length", "")
        too_large = TooLarge(f"The request body is larger than {limit} bytes. Upload large content as blobs.")
        if declared.isdigit() and int(declared) > limit:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async for part in self.request.stream():
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
        except ClientDisconnect as error:
            raise BadRequest("The request body was cut off.", code="IncompleteBody") from error
        return b"".join(parts)

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises BadRequest when it is not one."""
        body = await self.body()
        try:
            value = _decode_json(body) if body else {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"The request body is not valid JSON: {error}", code="InvalidJson") from error
        if not isinstance(value, dict):
            raise BadRequest("The request body must be a JSON object.", code="InvalidJson")
        return value
