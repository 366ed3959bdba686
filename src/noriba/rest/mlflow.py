"""MLflow's REST API: where it is mounted, who may call it, and its own error envelope (wire.md 8.2).

The same handlers serve plain MLflow clients and azureml-mlflow; they differ in the addresses of artifacts:

=============================================  ======================================================
``/api/2.0/mlflow/…``                          plain; workspace of the job's token, else the default one
``/mlflow/plain{WORKSPACE}/api/2.0/mlflow/…``  plain; any workspace
``/mlflow/v2.0{WORKSPACE}/api/2.0/mlflow/…``   azureml-mlflow (also ``v1.0``)
=============================================  ======================================================
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, get_origin

import msgspec
from starlette.responses import Response

from noriba.models.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NoribaError,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from noriba.models.principal import Action, Principal
from noriba.models.workspace import Workspace
from noriba.rest.authentication import authenticate
from noriba.rest.call import Call
from noriba.rest.mlflow_places import AzurePlaces, Places, PlainPlaces
from noriba.rest.router import SELF, WORKSPACE, Handler, Routes
from noriba.services import Services
from noriba.tracking.errors import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, invalid

T = TypeVar("T")

PLAIN_ROOTS = ("", f"/mlflow/plain{WORKSPACE}")
AZURE_ROOTS = (f"/mlflow/v1.0{WORKSPACE}", f"/mlflow/v2.0{WORKSPACE}")
API = "/api/2.0/mlflow"
_PREFIXES = (API, "/ajax-api/2.0/mlflow")
"""Where the client libraries look, and where MLflow's web pages do."""


class MlflowCall:
    """One request on an MLflow route: who calls, about which workspace, and how its addresses are spelt."""

    __slots__ = ("call", "places", "principal", "services", "workspace")

    def __init__(self, call: Call, principal: Principal, workspace: Workspace, places: Places) -> None:
        self.call = call
        self.services: Services = call.services
        self.principal = principal
        self.workspace = workspace
        self.places = places

    @property
    def params(self) -> dict[str, str]:
        return self.call.params

    @property
    def now_ms(self) -> int:
        """The time in milliseconds."""
        return round(self.services.clock() * 1000)

    async def read(self, shape: type[T]) -> T:
        """The request's parameters, from the body or (GET) the query. Raises BadRequest."""
        request = self.call.request
        if request.method == "GET":
            return _of_query(request.query_params.multi_items(), shape)
        return decode(await self.call.body(), msgspec.json.Decoder(shape, strict=False))


def _of_query(items: list[tuple[str, str]], shape: type[T]) -> T:
    lists = {
        field.name
        for field in msgspec.structs.fields(shape)  # type: ignore[arg-type]
        if get_origin(field.type) is list
    }
    values: dict[str, Any] = {}
    for name, value in items:
        if name in lists:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    try:
        return msgspec.convert(values, shape, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(f"Invalid value for a request parameter: {error}") from error


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """A JSON body of a known shape. Raises BadRequest."""
    if b"\\u0000" in body:
        raise invalid("Text must not contain NUL characters.")
    try:
        return decoder.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"Invalid value for a request parameter: {error}") from error


MlflowHandler = Callable[[MlflowCall], Awaitable[Any]]


class Api:
    """The MLflow endpoints of one module: ``@api.post("/runs/create")``."""

    def __init__(self) -> None:
        self.endpoints: list[tuple[str, str, Action, MlflowHandler]] = []

    def add(self, method: str, path: str, action: Action) -> Callable[[MlflowHandler], MlflowHandler]:
        def register(handler: MlflowHandler) -> MlflowHandler:
            self.endpoints.append((method, path, action, handler))
            return handler

        return register

    def get(self, path: str) -> Callable[[MlflowHandler], MlflowHandler]:
        return self.add("GET", path, "read")

    def query(self, path: str) -> Callable[[MlflowHandler], MlflowHandler]:
        """A POST that changes nothing."""
        return self.add("POST", path, "read")

    def post(self, path: str) -> Callable[[MlflowHandler], MlflowHandler]:
        return self.add("POST", path, "write")

    def patch(self, path: str) -> Callable[[MlflowHandler], MlflowHandler]:
        return self.add("PATCH", path, "write")

    def delete(self, path: str) -> Callable[[MlflowHandler], MlflowHandler]:
        return self.add("DELETE", path, "write")


def mount(routes: Routes, api: Api) -> None:
    """Add an API's endpoints to the routes at all places where clients look for them."""
    for method, path, action, handler in api.endpoints:
        for root in (*PLAIN_ROOTS, *AZURE_ROOTS):
            for prefix in _PREFIXES:
                add(routes, method, root + prefix + path, action, handler, azure=root in AZURE_ROOTS)


def add(
    routes: Routes, method: str, path: str, action: Action, handler: MlflowHandler, *, azure: bool = False
) -> None:
    """Add one route that speaks MLflow's way."""
    routes.add(method, path, access=SELF, action=action)(_bound(handler, action, azure))


def _bound(handler: MlflowHandler, action: Action, azure: bool) -> Handler:
    async def handle(call: Call) -> Any:
        try:
            return await handler(await _admit(call, action, azure))
        except NoribaError as error:
            return error_response(error)

    return handle


async def _admit(call: Call, action: Action, azure: bool) -> MlflowCall:
    """Authenticate, find the workspace, authorise. Raises Unauthenticated, Forbidden or NotFound."""
    principal = await authenticate(call)
    scope = call.request.scope
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise invalid("Text must not contain NUL characters.")
    workspaces = call.services.workspaces
    params = call.params
    try:
        if "workspace" in params:
            workspace = await workspaces.find(params["sub"], params["group"], params["workspace"])
        elif principal.job is not None:
            workspace = await workspaces.by_id(principal.job[0])
        else:
            own = call.services.settings.workspace
            workspace = await workspaces.find(own.subscription_id, own.resource_group, own.name)
    except NotFound as error:
        if principal.roles:
            raise
        raise _forbidden(principal, "this workspace") from error
    if not principal.may(action, workspace.id):
        raise _forbidden(principal, f"workspace '{workspace.name}'")
    places = AzurePlaces(call.services.host, workspace) if azure else PlainPlaces()
    return MlflowCall(call, principal, workspace, places)


def _forbidden(principal: Principal, where: str) -> Forbidden:
    return Forbidden(
        f"'{principal.name}' has no role in {where} that allows this. Ask an owner of the workspace for one."
    )


_CODES: tuple[tuple[type[NoribaError], str], ...] = (
    (Unauthenticated, "UNAUTHENTICATED"),
    (Forbidden, "PERMISSION_DENIED"),
    (NotFound, RESOURCE_DOES_NOT_EXIST),
    (Conflict, "RESOURCE_CONFLICT"),
    (BadRequest, INVALID_PARAMETER_VALUE),
    (Unavailable, "TEMPORARILY_UNAVAILABLE"),
)


def error_response(error: NoribaError) -> Response:
    """MLflow's envelope: ``{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": …}``."""
    code = error.code
    if not code.isupper():
        # An error of another part of the server, under the name that MLflow's clients know.
        code = next((name for kind, name in _CODES if isinstance(error, kind)), "INTERNAL_ERROR")
        if error.status == 413:
            code = "REQUEST_LIMIT_EXCEEDED"
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        headers["Retry-After"] = "1"
    return Response(
        msgspec.json.encode({"error_code": code, "message": error.message}),
        status_code=error.status,
        media_type="application/json",
        headers=headers,
    )


EMPTY = b"{}"


def done() -> Response:
    """The answer of calls that have nothing to say."""
    return Response(EMPTY, media_type="application/json")


def rendered(body: bytes) -> Response:
    """An answer that was encoded where it was read."""
    return Response(body, media_type="application/json")
