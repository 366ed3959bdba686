"""Shared access signatures: made for clients and checked, as Azure Storage defines them (wire.md 2.5).

A signature is over a *string to sign* that holds every field in a fixed order; the fields and their order depend on
the kind of signature (service or account) and its version (``sv``).
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from noriba.models.errors import Forbidden

VERSION = "2022-11-02"
"""The version of signatures made here; clients of the last years all know it."""

READ = "rl"
"""Permissions to read and list."""
WRITE = "racwdl"
"""Permissions to do anything with blobs."""


def container_sas(
    key: bytes, account: str, container: str, permissions: str, expires_at: float, *, starts_at: float = 0
) -> str:
    """A query string (without ``?``) that allows ``permissions`` on all blobs of a container."""
    return _service_sas(key, f"/blob/{account}/{container}", "c", permissions, expires_at, starts_at)


def directory_sas(
    key: bytes,
    account: str,
    container: str,
    path: str,
    permissions: str,
    expires_at: float,
    *,
    starts_at: float = 0,
) -> str:
    """A query string that allows ``permissions`` on all blobs under the folder ``path`` of a container."""
    path = path.strip("/")
    depth = path.count("/") + 1 if path else 0
    resource = f"/blob/{account}/{container}/{path}".rstrip("/")
    return _service_sas(key, resource, "d", permissions, expires_at, starts_at, {"sdd": str(depth)})


def blob_sas(
    key: bytes,
    account: str,
    container: str,
    name: str,
    permissions: str,
    expires_at: float,
    *,
    starts_at: float = 0,
) -> str:
    """A query string that allows ``permissions`` on one blob."""
    return _service_sas(key, f"/blob/{account}/{container}/{name}", "b", permissions, expires_at, starts_at)


def account_sas(key: bytes, account: str, permissions: str, expires_at: float) -> str:
    """A query string that allows ``permissions`` on the blobs of all containers of an account."""
    fields = {
        "sv": VERSION,
        "ss": "b",
        "srt": "co",
        "sp": _ordered(permissions),
        "se": wire_time(expires_at),
    }
    fields["sig"] = sign(key, account_string_to_sign(fields, account))
    return urlencode(fields)


def _service_sas(
    key: bytes,
    resource: str,
    kind: str,
    permissions: str,
    expires_at: float,
    starts_at: float,
    extra: dict[str, str] | None = None,
) -> str:
    fields = {"sv": VERSION, "sr": kind, "sp": _ordered(permissions), "se": wire_time(expires_at)}
    if starts_at:
        fields["st"] = wire_time(starts_at)
    fields |= extra or {}
    fields["sig"] = sign(key, service_string_to_sign(fields, resource))
    return urlencode(fields)


_PERMISSION_ORDER = "racwdxyltfmeopi"


def _ordered(permissions: str) -> str:
    return "".join(sorted(set(permissions), key=_PERMISSION_ORDER.index))


def wire_time(seconds: float) -> str:
    """``2026-01-31T12:00:00Z``"""
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def sign(key: bytes, text: str) -> str:
    """Base64 of HMAC-SHA256, as all of Azure Storage signs."""
    return base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()


def service_string_to_sign(fields: dict[str, str], resource: str) -> str:
    """The string to sign of a service SAS for ``resource`` (``/blob/<account>/<container>[/<blob>]``)."""
    version = fields.get("sv", "")
    lines = [fields.get(name, "") for name in ("sp", "st", "se")]
    lines.append(resource)
    lines += [fields.get(name, "") for name in ("si", "sip", "spr", "sv")]
    if version >= "2018-11-09":
        lines += [fields.get("sr", ""), fields.get("snapshot") or fields.get("versionid") or ""]
    if version >= "2020-12-06":
        lines.append(fields.get("ses", ""))
    lines += [fields.get(name, "") for name in ("rscc", "rscd", "rsce", "rscl", "rsct")]
    return "\n".join(lines)


def account_string_to_sign(fields: dict[str, str], account: str) -> str:
    """The string to sign of an account SAS."""
    lines = [account]
    lines += [fields.get(name, "") for name in ("sp", "ss", "srt", "st", "se", "sip", "spr", "sv")]
    if fields.get("sv", "") >= "2020-12-06":
        lines.append(fields.get("ses", ""))
    # This one ends in a line feed; the service's does not.
    return "\n".join(lines) + "\n"


# --- checking


class Wanted(NamedTuple):
    """What a request wants to do: any of ``permissions`` suffices; ``level`` is service (s), container (c), object (o)."""

    permissions: str
    level: str
    container: str = ""
    name: str = ""


class Caller(NamedTuple):
    """From where a request comes."""

    address: str
    is_https: bool


def check_sas(
    fields: dict[str, str],
    key: bytes,
    account_names: Sequence[str],
    wanted: Wanted,
    caller: Caller,
    now: float,
) -> str:
    """The permissions that a request's SAS gives it; it has one of those wanted.

    ``fields`` are the query parameters, ``account_names`` what clients may take for the account's name when they sign
    by themselves (path-style addresses leave room for error; the key decides). Raises Forbidden with Azure's codes.
    """
    is_account = "srt" in fields
    if "skoid" in fields or "si" in fields:
        raise _not_authentic("User delegation keys and stored access policies are not supported.")
    path = "" if is_account else _signed_path(fields, wanted)
    given = fields.get("sig", "").encode()
    for name in account_names:
        if is_account:
            text = account_string_to_sign(fields, name)
        else:
            text = service_string_to_sign(fields, f"/blob/{name}{path}")
        if hmac.compare_digest(sign(key, text).encode(), given):
            break
    else:
        raise _not_authentic("The signature does not match what was signed; it may be for another resource.")
    _check_time(fields, now)
    _check_caller(fields, caller)
    if is_account:
        if "b" not in fields.get("ss", ""):
            raise Forbidden("The signature is not for the blob service.", code="AuthorizationServiceMismatch")
        if wanted.level not in fields.get("srt", ""):
            raise Forbidden(
                "The signature is not for this kind of resource.", code="AuthorizationResourceTypeMismatch"
            )
    permissions = fields.get("sp", "")
    if not set(permissions) & set(wanted.permissions):
        raise Forbidden(
            f"The signature allows '{permissions}' only; this needs one of '{wanted.permissions}'.",
            code="AuthorizationPermissionMismatch",
        )
    return permissions


def _signed_path(fields: dict[str, str], wanted: Wanted) -> str:
    """``/container[/name]`` that a service SAS must have been signed for, to be good for what is wanted."""
    kind = fields.get("sr", "")
    container = f"/{wanted.container}"
    if wanted.level == "s" or kind not in ("b", "c", "d"):
        raise _not_authentic("The signature is not for this kind of resource.")
    if kind == "c":
        return container
    if kind == "b":
        if wanted.level != "o":
            raise _not_authentic("The signature is for a blob, not for its container.")
        return f"{container}/{wanted.name}"
    depth = fields.get("sdd", "")
    parts = wanted.name.rstrip("/").split("/") if wanted.name else []
    if wanted.level == "c":
        # A listing is inside a directory only if its prefix names the directory to the end.
        parts = wanted.name.split("/")[:-1]
    if not depth.isdigit() or int(depth) > len(parts):
        raise _not_authentic("The signature is for a directory deeper than this.")
    return "/".join([container, *parts[: int(depth)]])


def _check_time(fields: dict[str, str], now: float) -> None:
    start, expiry = fields.get("st", ""), fields.get("se", "")
    if not expiry:
        raise _not_authentic("The signature has no expiry time (se).")
    if start and now < _seconds(start):
        raise _not_authentic(f"The signature is not valid before {start}.")
    if now >= _seconds(expiry):
        raise _not_authentic(f"The signature expired at {expiry}. Get a new one.")


def _seconds(text: str) -> float:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise _not_authentic(f"'{text}' is not a time.") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def _check_caller(fields: dict[str, str], caller: Caller) -> None:
    if fields.get("spr") == "https" and not caller.is_https:
        raise Forbidden("The signature is for https only.", code="AuthorizationProtocolMismatch")
    allowed = fields.get("sip")
    if allowed:
        first, _, last = allowed.partition("-")
        try:
            address = ipaddress.ip_address(caller.address)
            low, high = ipaddress.ip_address(first), ipaddress.ip_address(last or first)
            inside = low.version == high.version == address.version and int(low) <= int(address) <= int(high)
        except ValueError as error:
            raise _not_authentic(f"'{allowed}' is not an address or a range of addresses.") from error
        if not inside:
            raise Forbidden(
                "The signature is for other addresses than yours.", code="AuthorizationSourceIPMismatch"
            )


def _not_authentic(detail: str) -> Forbidden:
    return Forbidden(
        f"The server failed to authenticate the request. {detail}",
        code="AuthenticationFailed",
        info={"detail": detail},
    )


# --- shared key


def shared_key_texts(
    method: str, path: str, query: Sequence[tuple[str, str]], headers: Mapping[str, str], signer: str
) -> list[str]:
    """The strings that a client may have signed with the account's key for a request.

    ``path`` is the encoded path, ``query`` the decoded parameters, ``headers`` have lower-case names, ``signer`` is
    the account's name as the client knows it. Clients differ in how they sort headers, so there are two.
    """
    slots = []
    for name in _SIGNED_HEADERS:
        value = headers.get(name, "")
        if (name == "content-length" and value == "0") or (name == "date" and "x-ms-date" in headers):
            value = ""
        slots.append(value)
    names = [name for name in headers if name.startswith("x-ms-")]
    resource = f"/{signer}{path}"
    parameters: dict[str, list[str]] = {}
    for name, value in query:
        parameters.setdefault(name.lower(), []).append(value)
    resource += "".join(f"\n{name}:{','.join(sorted(values))}" for name, values in sorted(parameters.items()))
    texts = []
    for order in (sorted(names, key=_service_order), sorted(names)):
        canonical = "".join(f"{name}:{headers[name].strip()}\n" for name in order)
        text = "\n".join([method, *slots]) + "\n" + canonical + resource
        if text not in texts:
            texts.append(text)
    return texts


_SIGNED_HEADERS = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)


def _service_order(name: str) -> str:
    # The service ignores hyphens and puts underscores before digits.
    return name.replace("-", "").replace("_", "!")
