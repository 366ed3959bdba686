"""Large artifacts in parts: MLflow's multipart upload and signed download addresses.

Clients do this when they are told to (``MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD``, ``…_DOWNLOAD``). A part is a block of
the blob, put to a signed address; completing the upload commits the blocks.
"""

from __future__ import annotations

import base64
import mimetypes
import posixpath
import re
import uuid
from typing import Any
from urllib.parse import quote

import msgspec

from noriba.rest.mlflow import MlflowCall, add, done
from noriba.rest.mlflow_artifacts import MOUNTS, PROXY, store_of
from noriba.rest.router import Routes
from noriba.storage import blocks, sas
from noriba.storage.model import BlobHeaders
from noriba.tracking.artifact_store import Spot
from noriba.tracking.artifacts import Place, check_path, parse_proxied
from noriba.tracking.errors import invalid

ADDRESS_LIFETIME_S = 6 * 3600.0
MAX_PARTS = 10_000
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")


class Create(msgspec.Struct):
    path: str = ""
    num_parts: int = 1


class Part(msgspec.Struct):
    part_number: int = 0
    etag: str | None = None
    url: str | None = None


class Complete(msgspec.Struct):
    path: str = ""
    upload_id: str = ""
    parts: list[Part] = []


def _block_id(upload_id: str, part: int) -> str:
    # The upload is in the id, so that two uploads of one artifact do not take each other's parts.
    return base64.b64encode(f"{upload_id}{part:05d}".encode()).decode()


def _place(request: MlflowCall, local_path: str) -> Place:
    """The artifact: the folder of the request's path, and the name of the client's file."""
    name = posixpath.basename(local_path.replace("\\", "/"))
    return parse_proxied(f"{request.params['artifact'].rstrip('/')}/{check_path(name)}")


def _address(request: MlflowCall, spot: Spot, permissions: str) -> str:
    services = request.services
    expires = services.clock() + ADDRESS_LIFETIME_S
    query = sas.blob_sas(services.keys.account_key(spot.account), *spot, permissions, expires)
    return services.blob_url(*spot, query)


def _upload_id(text: str) -> str:
    if _UPLOAD_ID.fullmatch(text) is None:
        raise invalid("Invalid value for parameter 'upload_id': it is not one of this server.")
    return text


async def create(request: MlflowCall) -> Any:
    """Begin an upload in parts: a signed address for each."""
    wanted = await request.read(Create)
    if not 0 < wanted.num_parts <= MAX_PARTS:
        raise invalid(f"An upload has between 1 and {MAX_PARTS} parts, not {wanted.num_parts}.")
    spot = await store_of(request).locate(_place(request, wanted.path), writing=True)
    await request.services.blobs.ensure_container(spot.account, spot.container)
    upload_id = uuid.uuid4().hex
    address = _address(request, spot, "cw")
    return {
        "upload_id": upload_id,
        "credentials": [
            {
                "part_number": part,
                "url": f"{address}&comp=block&blockid={quote(_block_id(upload_id, part), safe='')}",
                "headers": {},
            }
            for part in range(1, wanted.num_parts + 1)
        ],
    }


async def complete(request: MlflowCall) -> Any:
    """Make the artifact of its parts."""
    wanted = await request.read(Complete)
    upload_id = _upload_id(wanted.upload_id)
    numbers = sorted(part.part_number for part in wanted.parts)
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise invalid("Invalid value for parameter 'parts': each part once, numbered from 1.")
    place = _place(request, wanted.path)
    spot = await store_of(request).locate(place, writing=True)
    entries: list[tuple[blocks.Source, str]] = [
        ("Uncommitted", _block_id(upload_id, number)) for number in numbers
    ]
    content_type = mimetypes.guess_type(place.path)[0] or "application/octet-stream"
    await blocks.put_block_list(
        request.services.blobs, *spot, entries, headers=BlobHeaders(content_type=content_type)
    )
    return done()


async def abort(request: MlflowCall) -> Any:
    """Give an upload up; parts that nobody commits are swept by the blob store."""
    _upload_id((await request.read(Complete)).upload_id)
    return done()


async def presign(request: MlflowCall) -> Any:
    """A signed address to download an artifact from, in ranges."""
    place = parse_proxied(request.params["artifact"])
    store = store_of(request)
    found = await store.head(place)
    spot = await store.locate(place)
    return {"url": _address(request, spot, "r"), "headers": {}, "file_size": found.size}


def mount(routes: Routes) -> None:
    """Add these routes at all places."""
    for root, azure in MOUNTS:
        for name, handler in (("create", create), ("complete", complete), ("abort", abort)):
            path = f"{root}{PROXY}/mpu/{name}/{{artifact:path}}"
            add(routes, "POST", path, "write", handler, azure=azure)
        add(routes, "GET", f"{root}{PROXY}/presigned/{{artifact:path}}", "read", presign, azure=azure)
