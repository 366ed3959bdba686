"""Addresses outside of datastores: which storage account, container and path a URL means. Pure."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import msgspec


class BlobAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A path in a container of an Azure Blob endpoint. ``container_url`` has no query, ``path`` no leading slash.

    ``account`` is set (and ``container_url`` empty) when the endpoint is this server's own.
    """

    container: str
    path: str
    account: str = ""
    container_url: str = ""
    sas: str = ""


_AZURE_HOST = re.compile(r"(?P<account>[a-z0-9-]+)\.(?:blob|dfs)\.(?P<suffix>[\w.-]+)")


def own_blob(base_url: str, url: str) -> BlobAddress | None:
    """The address if ``url`` is one of this server's blobs: ``{base}/blob/{account}.blob.{suffix}/{container}/…``.

    The host is not compared: the server may have been reached under another name or port when it was written.
    """
    parts = urlsplit(url)
    if parts.scheme != urlsplit(base_url).scheme:
        return None
    segments = [segment for segment in parts.path.split("/") if segment]
    if len(segments) < 3 or segments[0].lower() != "blob":
        return None
    account = segments[1].partition(".")[0].lower()
    path = unquote("/".join(segments[3:]))
    if path and parts.path.endswith("/"):
        path += "/"
    return BlobAddress(account=account, container=segments[2], path=path)


def azure_blob(url: str) -> BlobAddress | None:
    """The address if ``url`` is in an Azure storage account: https of a blob or dfs host, wasb[s], abfs[s]."""
    parts = urlsplit(url)
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
        container=container,
        path=unquote(path) if parts.scheme in ("http", "https") else path,
        container_url=f"https://{endpoint}{f':{parts.port}' if parts.port else ''}/{container}",
        sas=parts.query if "sig=" in parts.query else "",
    )
