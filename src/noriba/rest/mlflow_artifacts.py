"""MLflow's routes for artifacts: listing, and the proxy through which plain clients read and write them."""

from __future__ import annotations

import mimetypes
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from noriba.rest import mlflow_wire as wire
from noriba.rest.mlflow import (
    AZURE_ROOTS,
    PLAIN_ROOTS,
    Api,
    MlflowCall,
    add,
    done,
)
from noriba.rest.mlflow_places import parse_address
from noriba.rest.mlflow_runs import ById
from noriba.rest.router import Routes
from noriba.tracking import logged_models, registry, runs
from noriba.tracking.artifact_store import ArtifactStore, Entry
from noriba.tracking.artifacts import ModelPlace, Place, RunPlace, check_path, parse_proxied
from noriba.tracking.errors import invalid, missing, unknown
from noriba.tracking.validation import check_model_name

api = Api()
PROXY = "/api/2.0/mlflow-artifacts"
MOUNTS = tuple((root, root in AZURE_ROOTS) for root in (*PLAIN_ROOTS, *AZURE_ROOTS))
"""Where the routes beside MLflow's own API stand, and whether azureml-mlflow calls there."""

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class List(ById):
    path: str = ""
    page_token: str | None = None


class ListModel(msgspec.Struct):
    artifact_directory_path: str = ""


class ListProxied(msgspec.Struct):
    path: str = ""


class Fetch(ById):
    path: str = ""
    artifact_file_path: str = ""
    name: str = ""
    version: str = ""


def store_of(request: MlflowCall) -> ArtifactStore:
    """The artifacts of the request's workspace."""
    services = request.services
    return ArtifactStore(services.database, services.blobs, request.workspace)


def file_info(entry: Entry, folder: str = "") -> dict[str, Any]:
    """MLflow's FileInfo; ``folder`` goes before the entry's own name."""
    path = f"{folder}/{entry.path}" if folder else entry.path
    if entry.is_dir:
        return {"path": path, "is_dir": True}
    return {"path": path, "is_dir": False, "file_size": entry.size}


@api.get("/artifacts/list")
async def list_artifacts(request: MlflowCall) -> Any:
    """What is directly below a path of a run's artifacts."""
    wanted = await request.read(List)
    run_id, path = wanted.checked, check_path(wanted.path, empty=True)
    run = await request.services.database.read(
        lambda connection: runs.get_in(connection, request.workspace.id, run_id)
    )
    root = wire.run_address(run, request.places)
    if run.artifact_location:
        raise invalid(f"The artifacts of run {run_id} are kept at {root}; read them there.")
    entries = await store_of(request).entries(RunPlace(run_id, path))
    return {"root_uri": root, "files": [file_info(entry, path) for entry in entries]}


@api.get("/logged-models/{model_id}/artifacts/directories")
async def list_model_artifacts(request: MlflowCall) -> Any:
    """What is directly below a path of a logged model's files."""
    wanted = await request.read(ListModel)
    model_id = request.params["model_id"]
    path = check_path(wanted.artifact_directory_path, empty=True)
    model = await request.services.database.read(
        lambda connection: logged_models.get_in(connection, request.workspace.id, model_id)
    )
    entries = await store_of(request).entries(ModelPlace(model_id, path))
    return {
        "root_uri": wire.model_address(model, request.places),
        "files": [file_info(entry, path) for entry in entries],
    }


async def list_proxied(request: MlflowCall) -> Any:
    """What is directly below an ``mlflow-artifacts:`` path; names are relative to it."""
    wanted = await request.read(ListProxied)
    entries = await store_of(request).entries(parse_proxied(wanted.path))
    return {"files": [file_info(entry) for entry in entries]}


async def upload(request: MlflowCall) -> Any:
    """Store a file, streamed."""
    place = parse_proxied(request.params["artifact"])
    content_type = mimetypes.guess_type(place.path)[0] or "application/octet-stream"
    await store_of(request).put(place, request.call.request.stream(), content_type)
    return done()


async def download(request: MlflowCall) -> Any:
    """Send a file, streamed."""
    return await send(request, parse_proxied(request.params["artifact"]))


async def send(request: MlflowCall, place: Place) -> Response:
    """A file as an attachment."""
    return await send_file(store_of(request), place, request.call.request)


async def send_file(store: ArtifactStore, place: Place, request: Request) -> Response:
    """A file as an attachment, or the part of it that a Range header asks for."""
    name = PurePosixPath(place.path).name
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
    }
    wanted = _RANGE.fullmatch(request.headers.get("range", ""))
    if wanted is None or not any(wanted.groups()):
        found, chunks = await store.open(place)
        start, end, status = 0, found.size, 200
    else:
        size = (await store.head(place)).size
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= size or end <= start:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        found, chunks = await store.open(place, start, end)
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
    headers["Content-Length"] = str(end - start)
    headers["ETag"] = f'"{found.etag}"'
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return StreamingResponse(chunks, status, headers, media_type)


async def delete(request: MlflowCall) -> Any:
    """Delete a file or folder."""
    await store_of(request).delete(parse_proxied(request.params["artifact"]))
    return done()


@api.get("/get-artifact")
async def get_artifact(request: MlflowCall) -> Any:
    """A file of a run (MLflow's web pages and older clients)."""
    wanted = await request.read(Fetch)
    return await send(request, RunPlace(wanted.checked, check_path(wanted.path)))


@api.get("/logged-models/{model_id}/artifacts/files")
async def get_model_file(request: MlflowCall) -> Any:
    """A file of a logged model."""
    wanted = await request.read(Fetch)
    return await send(request, ModelPlace(request.params["model_id"], check_path(wanted.artifact_file_path)))


@api.get("/model-versions/get-artifact")
async def get_version_artifact(request: MlflowCall) -> Any:
    """A file of a model version."""
    wanted = await request.read(Fetch)
    name, path = check_model_name(wanted.name), check_path(wanted.path)
    if not wanted.version:
        raise missing("version")
    version = await request.services.database.read(
        lambda connection: registry.get_version_in(connection, request.workspace.id, name, wanted.version)
    )
    place = parse_address(version.uri)
    if place is None:
        raise unknown(f"The files of the model version are kept at {version.uri}; read them there.")
    below = f"{place.path}/{path}" if place.path else path
    return await send(request, msgspec.structs.replace(place, path=below))


def mount_proxy(routes: Routes) -> None:
    """Add the routes that are beside MLflow's own API."""
    for root, azure in MOUNTS:
        for prefix in (PROXY, "/ajax-api/2.0/mlflow-artifacts"):
            one = f"{root}{prefix}/artifacts/{{artifact:path}}"
            add(routes, "GET", f"{root}{prefix}/artifacts", "read", list_proxied, azure=azure)
            add(routes, "GET", one, "read", download, azure=azure)
            add(routes, "PUT", one, "write", upload, azure=azure)
            add(routes, "DELETE", one, "write", delete, azure=azure)
        add(routes, "GET", f"{root}/get-artifact", "read", get_artifact, azure=azure)
        add(routes, "GET", f"{root}/model-versions/get-artifact", "read", get_version_artifact, azure=azure)
