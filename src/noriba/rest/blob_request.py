"""A request on the blob plane: which resource it is about, and whether its sender may do what it asks."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from starlette.responses import Response

from noriba.models.errors import BadRequest, Forbidden, NotFound, TooLarge, Unauthenticated, Unavailable
from noriba.models.principal import Action
from noriba.rest.authentication import principal_of_token
from noriba.rest.blob_wire import bad_header, parse_date
from noriba.rest.call import Call
from noriba.storage.sas import Caller, Wanted, check_sas, shared_key_texts, sign

REGISTRY_ACCOUNT = "registries"
"""The account of containers whose addresses have a single segment, ``{BASE}/{container}`` (wire.md 2.6)."""

RECEIVE_TIMEOUT_S = 120.0
_CLOCK_SKEW_S = 900.0
_SERVICES = (".blob.", ".dfs.")


class Operation(NamedTuple):
    """One operation of the API and what it takes: any of the SAS ``permissions``, the role's ``action``."""

    handler: Callable[[BlobRequest], Awaitable[Response]]
    permissions: str
    level: str
    action: Action


class Address(NamedTuple):
    """A resource: account; account and container; or all three. ``is_dfs`` for the Data Lake endpoint."""

    account: str
    container: str
    name: str
    is_dfs: bool = False


def parse_address(raw_path: str) -> Address:
    """The resource of an encoded path. Raises BadRequest when it is not UTF-8.

    ``/blob/{account}[.blob.{suffix}]/{container}/{name}``; slashes after the account may be doubled (wire.md 2.6).
    Anything else is ``/{container}/{name}`` of the registries' account.
    """
    try:
        path = unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("The address is not valid UTF-8.", code="InvalidUri") from error
    is_dfs = False
    if path[:6].lower() == "/blob/":
        account, _, rest = path[6:].lstrip("/").partition("/")
        for service in _SERVICES:
            found, dot, _ = account.partition(service)
            if dot:
                account, is_dfs = found, service == ".dfs."
                break
    else:
        account, rest = REGISTRY_ACCOUNT, path
    container, _, name = rest.lstrip("/").partition("/")
    return Address(account.lower(), container, name, is_dfs)


class BlobRequest:
    """One request. ``headers`` and ``query`` have lower-case names."""

    def __init__(
        self, call: Call, address: Address, *, query: dict[str, str] | None = None, headers: Any = None
    ) -> None:
        self.call = call
        self.services = call.services
        self.blobs = call.services.blobs
        self.account, self.container, self.name, self.is_dfs = address
        self.method = call.request.method
        self.signed_paths = [raw_path(call)]
        self.headers: dict[str, str] = dict(call.request.headers) if headers is None else headers
        self.query = call.query if query is None else query
        self.raw_query = raw_query(call.request.url.query)
        self.may_overwrite = True

    @property
    def target(self) -> tuple[str, str, str]:
        """(account, container, name)"""
        return self.account, self.container, self.name

    @property
    def content_length(self) -> int | None:
        """The declared length of the body. Raises BadRequest."""
        value = self.headers.get("content-length")
        if value is None:
            return None
        if not value.isdigit():
            raise bad_header("Content-Length", value)
        return int(value)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A number in the query. Raises BadRequest (OutOfRangeQueryParameterValue)."""
        text = self.query.get(name)
        if not text:
            return default
        if not text.isdigit() or not low <= int(text) <= high:
            raise BadRequest(
                f"The query parameter {name} is a number from {low} to {high}.",
                code="OutOfRangeQueryParameterValue",
                target=name,
            )
        return int(text)

    async def body(self, limit: int) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises TooLarge, Unavailable (the sender is silent), ClientDisconnect."""
        declared = self.content_length
        too_large = TooLarge(f"The body is larger than {limit} bytes, the most that this operation takes.")
        if declared is not None and declared > limit:
            raise too_large
        size = 0
        stream = self.call.request.stream()
        try:
            while True:
                async with asyncio.timeout(RECEIVE_TIMEOUT_S):
                    part = await anext(stream, None)
                if part is None:
                    return
                size += len(part)
                if size > limit:
                    raise too_large
                if part:
                    yield part
        except TimeoutError as error:
            raise Unavailable(
                f"No more of the body came for {RECEIVE_TIMEOUT_S:.0f} s.", code="OperationTimedOut"
            ) from error

    async def small_body(self, limit: int = 16 * 1024 * 1024) -> bytes:
        """The whole body. Raises TooLarge."""
        return b"".join([part async for part in self.body(limit)])

    # --- who asks

    async def admit(self, operation: Operation) -> None:
        """Raise Unauthenticated or Forbidden unless the sender may do ``operation`` here."""
        await self.admit_to(operation.permissions, operation.level, operation.action)

    async def admit_to(self, permissions: str, level: str, action: Action) -> None:
        """See ``admit``."""
        if "sig" in self.query:
            granted = check_sas(
                dict(self.raw_query),
                self.services.keys.account_key(self.account),
                self._account_names(),
                Wanted(permissions, level, self.container, self._name_for(level)),
                self._caller(),
                self.services.clock(),
            )
            # A signature with "create" alone makes new blobs and replaces none.
            self.may_overwrite = "w" in granted or "w" not in permissions
            return
        scheme = self.headers.get("authorization", "").partition(" ")[0].lower()
        if scheme == "sharedkey":
            self._check_shared_key()
        elif scheme == "bearer":
            await self._check_principal(action)
        else:
            raise Unauthenticated(
                "The request has no authentication information: it needs a SAS, a shared key or a bearer token.",
                code="NoAuthenticationInformation",
            )

    def _name_for(self, level: str) -> str:
        return self.query.get("prefix", "") if level == "c" else self.name

    def _caller(self) -> Caller:
        client = self.call.request.client
        return Caller(client.host if client else "", self.call.request.url.scheme == "https")

    def _account_names(self) -> list[str]:
        host = self.headers.get("host", "")
        names = [self.account, f"{self.account}.blob", "blob", host.split(".", maxsplit=1)[0]]
        return [*names, f"{host}/blob/{self.account}"]

    def _check_shared_key(self) -> None:
        signer, _, given = self.headers["authorization"].partition(" ")[2].strip().partition(":")
        key = self.services.keys.account_key(self.account)
        paths = dict.fromkeys(path for signed in self.signed_paths for path in (signed, unquote(signed)))
        matches = any(
            hmac.compare_digest(sign(key, text).encode(), given.encode())
            for path in paths
            for text in shared_key_texts(self.method, path, self.raw_query, self.headers, signer)
        )
        if not matches:
            raise Forbidden(
                "The server failed to authenticate the request. The signature of the Authorization header does not "
                "match; check the account key.",
                code="AuthenticationFailed",
            )
        date = self.headers.get("x-ms-date") or self.headers.get("date") or ""
        if not date or abs(parse_date("x-ms-date", date) - self.services.clock()) > _CLOCK_SKEW_S:
            raise Forbidden(
                "The server failed to authenticate the request. Its date is missing or too far from the server's.",
                code="AuthenticationFailed",
            )

    async def _check_principal(self, action: Action) -> None:
        token = self.headers["authorization"].partition(" ")[2].strip()
        principal = self.call.principal = await principal_of_token(self.call, token)
        if self.account == REGISTRY_ACCOUNT:
            # Registries are for all to read; who may do anything everywhere may write.
            if action == "read" or principal.may(action, REGISTRY_ACCOUNT):
                return
        else:
            try:
                workspace = await self.services.workspaces.by_account(self.account)
            except NotFound:
                if principal.roles:
                    raise
            else:
                if principal.may(action, workspace.id):
                    return
        raise Forbidden(
            f"'{principal.name}' has no role that allows this here. Ask an owner of the workspace for one.",
            code="AuthorizationPermissionMismatch",
        )


def raw_path(call: Call) -> str:
    """The path as it was sent, still encoded."""
    sent: bytes = call.request.scope.get("raw_path") or b""
    return sent.partition(b"?")[0].decode("latin-1")


def raw_query(text: str) -> list[tuple[str, str]]:
    """Decoded parameters in which ``+`` stays what it is (as in unencoded Base64)."""
    pairs = (part.partition("=") for part in text.split("&") if part)
    return [(unquote(name), unquote(value)) for name, _, value in pairs]
