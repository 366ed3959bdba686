"""Addresses outside of datastores: which storage account, container and path a URL means. Pure."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

REGISTRY_ACCOUNT = "registries"
"""The storage account of all registries. Its containers have addresses of one segment, ``{base}/reg-…``, because the
SDK takes the first segment of a registry's addresses for the container (wire.md 2.6)."""


class BlobAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A path in a container of an Azure Blob endpoint. ``container_url`` has no query, ``path`` no leading slash.

    ``container_url`` is empty for the addresses of this server's own endpoint.
    """

    account: str
    container: str
    path: str
    container_url: str = ""
    sas: str = ""


_REGISTRY_CONTAINER = re.compile(r"reg-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_AZURE_HOST = re.compile(r"(?P<account>[a-z0-9-]+)\.(?:blob|dfs)\.(?P<suffix>[\w.-]+)")


def own_blob(url: str) -> BlobAddress | None:
    """The address if ``url`` looks like one of this server's blobs: ``…/blob/{account}.blob.{suffix}/{container}/…``.

    The host is not compared: the server may have been reached under another name or port when it was written.
    Whether there is such an account is for the caller to find out.
    """
    parts = _split(url)
    if parts is None or parts.scheme != "https":
        return None
    segments = [segment for segment in parts.path.split("/") if segment]
    if segments and _REGISTRY_CONTAINER.fullmatch(segments[0]):
        account, container, *below = REGISTRY_ACCOUNT, *segments
    elif len(segments) >= 3 and segments[0].lower() == "blob":
        account, container, *below = segments[1].partition(".")[0].lower(), *segments[2:]
    else:
        return None
    path = unquote("/".join(below))
    if path and parts.path.endswith("/"):
        path += "/"
    return BlobAddress(account=account, container=container, path=path)


def azure_blob(url: str) -> BlobAddress | None:
    """The address if ``url`` is in an Azure storage account: https of a blob or dfs host, wasb[s], abfs[s]."""
    parts = _split(url)
    if parts is None:
        return None
    host = (parts.hostname or "").lower()
    match = _AZURE_HOST.fullmatch(host)
    if match is None:
        return None
    endpoint = f"{match['account']}.blob.{match['suffix']}"
    if parts.scheme in ("wasb", "wasbs", "abfs", "abfss"):
        container, path = unquote(parts.username or ""), parts.path.lstrip("/")
    else:
        container, _, path = parts.path.lstrip("/").partition("/")
    if not container:
        return None
    return BlobAddress(
        account=match["account"],
        container=container,
        path=unquote(path) if parts.scheme in ("http", "https") else path,
        container_url=f"https://{endpoint}{f':{parts.port}' if parts.port else ''}/{container}",
        sas=parts.query if "sig=" in parts.query else "",
    )


def in_azure(address: BlobAddress) -> str:
    """How Azure would write the address of one of this server's blobs.

    The SDK downloads code from addresses of this form only, and takes nothing from them but container and path
    (wire.md 3.2).
    """
    return f"https://{address.account}.blob.core.windows.net/{address.container}/{address.path}"


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname
    except ValueError:
        return None
    return parts
