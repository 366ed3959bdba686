"""Shared access signatures: made for clients and checked, as Azure Storage defines them (wire.md 2.5).

A signature is over a *string to sign* that holds every field in a fixed order; the fields and their order depend on
the kind of signature (service or account) and its version (``sv``).
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
from urllib.parse import urlencode

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
