"""What azureml-mlflow needs beside MLflow's API: artifacts by signed addresses, and fresh tokens for jobs.

``/history/…/runs/{run}/artifacts`` is Azure's run history, ``/artifact/v2.0/…/artifacts/{origin}/{container}`` its
artifact service; both say the same about the same blobs. Azure's error envelope is spoken here.
"""

from __future__ import annotations

import datetime as dt
import mimetypes
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from noriba.identity.tokens import LIFETIME_S
from noriba.models.errors import BadRequest, Forbidden, NoribaError, NotFound
from noriba.models.principal import Action
from noriba.rest.call import Call
from noriba.rest.mlflow_artifacts import send_file
from noriba.rest.router import WORKSPACE, Routes
from noriba.storage import sas
from noriba.storage.model import BlobProperties
from noriba.tracking.artifact_store import ArtifactStore, Spot
from noriba.tracking.artifacts import Place, check_path, parse_origin

routes = Routes()

ADDRESS_LIFETIME_S = 6 * 3600.0
"""How long a signed address is good: an upload of a large model has to end within it."""
PAGE = 1000
MAX_BATCH = 10_000

HISTORY = "/history/v1.0" + WORKSPACE
RUN_ROOTS = tuple(
    f"{HISTORY}/{kind}/{{experiment}}/runs/{{run}}" for kind in ("experiments", "experimentids")
)
SERVICE = "/artifact/v2.0" + WORKSPACE + "/artifacts"
ORIGIN_ROOT = SERVICE + "/{origin}/{container}"

ArtifactHandler = Callable[["ArtifactCall"], Awaitable[Any]]


class ArtifactPath(msgspec.Struct):
    path: str = ""


class Batch(msgspec.Struct):
    paths: list[ArtifactPath] = []


class BatchIds(msgspec.Struct, rename="camel"):
    artifact_ids: list[str] = []


class ArtifactCall:
    """One request about the artifacts of a container (a run's, or another origin's)."""

    def __init__(self, call: Call, origin: str, container: str) -> None:
        self.call = call
        self.origin = origin
        self.container = container
        services = call.services
        self.store = ArtifactStore(services.database, services.blobs, call.workspace)

    def place(self, path: str) -> Place:
        return parse_origin(self.origin, self.container, path)

    @property
    def path(self) -> str:
        """The path that the query asks for."""
        path = self.call.query.get("path")
        if not path:
            raise BadRequest("Say which artifact: ?path=…", code="UserError", target="path")
        return check_path(path)

    def address(self, spot: Spot, permissions: str) -> str:
        """A signed address of a blob.

        azureml-mlflow downloads only addresses that look like ``https://….blob.<suffix>/<container>/<name>?…``, where
        the suffix is the cloud's and ends with a slash here: hence the two slashes (wire.md 2.6).
        """
        services = self.call.services
        expires = services.clock() + ADDRESS_LIFETIME_S
        key = services.keys.account_key(spot.account)
        query = sas.blob_sas(key, *spot, permissions, expires)
        return (
            f"{services.base_url}/blob/{spot.account}.blob.local//{spot.container}/{quote(spot.name)}?{query}"
        )

    def artifact(self, path: str, blob: BlobProperties | None) -> dict[str, Any]:
        """Azure's Artifact."""
        created = self.call.services.clock() if blob is None else blob.created_at
        return {
            "artifactId": f"{self.origin}/{self.container}/{path}",
            "origin": self.origin,
            "container": self.container,
            "path": path,
            "etag": f'"{blob.etag}"' if blob else None,
            "createdTime": dt.datetime.fromtimestamp(created, dt.UTC).isoformat(),
            "dataPath": None,
            "tags": None,
        }

    def content(self, path: str, spot: Spot, permissions: str) -> dict[str, Any]:
        """Azure's ArtifactContentInformation."""
        return {
            "contentUri": self.address(spot, permissions),
            "origin": self.origin,
            "container": self.container,
            "path": path,
            "tags": None,
        }

    async def existing(self, path: str) -> tuple[BlobProperties, Spot]:
        """A file that is there. Raises NotFound."""
        place = self.place(path)
        try:
            return await self.store.head(place), await self.store.locate(place)
        except NotFound as error:
            raise NotFound(
                f"There is no artifact '{path}' in {self.origin}/{self.container}.",
                code="UserError",
                target=path,
            ) from error

    async def page(
        self, below: str, document: Callable[[str, BlobProperties, Spot], dict[str, Any]]
    ) -> dict[str, Any]:
        """A page of all files below a path."""
        root = self.place(below)
        spot = await self.store.locate(root)
        marker = self.call.query.get("continuationtoken") or None
        found, following = await self.store.walk(root, marker, PAGE)
        answer: dict[str, Any] = {
            "value": [
                document(
                    f"{below}/{path}" if below else path, blob, Spot(spot.account, spot.container, blob.name)
                )
                for path, blob in found
            ]
        }
        if following is not None:
            request = self.call.request
            query = {**dict(request.query_params), "continuationToken": following}
            answer["continuationToken"] = following
            answer["nextLink"] = f"{self.call.services.base_url}{request.url.path}?{urlencode(query)}"
        return answer


def _on(method: str, suffix: str) -> Callable[[ArtifactHandler], ArtifactHandler]:
    """Serve a handler for the artifacts of runs and for those of any origin."""

    def register(handler: ArtifactHandler) -> ArtifactHandler:
        async def of_run(call: Call) -> Any:
            return await handler(ArtifactCall(call, "ExperimentRun", f"dcid.{call.params['run']}"))

        async def of_origin(call: Call) -> Any:
            return await handler(ArtifactCall(call, call.params["origin"], call.params["container"]))

        action: Action = "read" if method == "GET" else "write"
        for root in RUN_ROOTS:
            routes.add(method, f"{root}/artifacts{suffix}", action=action)(of_run)
        routes.add(method, f"{ORIGIN_ROOT}{suffix}", action=action)(of_origin)
        return handler

    return register


@_on("GET", "")
async def list_in_container(artifacts: ArtifactCall) -> Any:
    """All artifacts."""
    return await artifacts.page("", lambda path, blob, _: artifacts.artifact(path, blob))


@_on("GET", "/path")
async def list_in_path(artifacts: ArtifactCall) -> Any:
    """The artifacts below a path."""
    below = check_path(artifacts.call.query.get("path", ""), empty=True)
    return await artifacts.page(below, lambda path, blob, _: artifacts.artifact(path, blob))


@_on("GET", "/prefix/contentinfo")
async def list_addresses(artifacts: ArtifactCall) -> Any:
    """Signed addresses of the artifacts below a path."""
    below = check_path(artifacts.call.query.get("path", ""), empty=True)
    return await artifacts.page(below, lambda path, _, spot: artifacts.content(path, spot, "r"))


@_on("GET", "/metadata")
async def get_artifact(artifacts: ArtifactCall) -> Any:
    """One artifact."""
    blob, _ = await artifacts.existing(artifacts.path)
    return artifacts.artifact(artifacts.path, blob)


@_on("GET", "/contentinfo")
async def get_address(artifacts: ArtifactCall) -> Any:
    """A signed address to read an artifact from."""
    _, spot = await artifacts.existing(artifacts.path)
    return artifacts.content(artifacts.path, spot, "r")


@_on("GET", "/artifacturi")
async def get_address_only(artifacts: ArtifactCall) -> Any:
    """A signed address to read an artifact from, as a string."""
    _, spot = await artifacts.existing(artifacts.path)
    return artifacts.address(spot, "r")


@_on("GET", "/content")
async def get_content(artifacts: ArtifactCall) -> Any:
    """An artifact's bytes."""
    await artifacts.existing(artifacts.path)
    return await send_file(artifacts.store, artifacts.place(artifacts.path), artifacts.call.request)


@_on("POST", "/content")
async def put_content(artifacts: ArtifactCall) -> Any:
    """Store an artifact's bytes."""
    path = artifacts.path
    content_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
    blob = await artifacts.store.put(artifacts.place(path), artifacts.call.request.stream(), content_type)
    return artifacts.artifact(path, blob)


@_on("GET", "/write")
async def get_write_address(artifacts: ArtifactCall) -> Any:
    """A signed address to write an artifact to."""
    path = artifacts.path
    if not artifacts.call.principal.may("write", artifacts.call.workspace.id):
        raise Forbidden(f"'{artifacts.call.principal.name}' may only read in this workspace.")
    spot = await artifacts.store.locate(artifacts.place(path), writing=True)
    return artifacts.content(path, spot, "rcw")


@_on("POST", "/batch/metadata")
async def create_empty(artifacts: ArtifactCall) -> Any:
    """Signed addresses to write several artifacts to.

    The client uploads without overwriting, so what stands at these paths makes way: logging an artifact again
    replaces it, as MLflow says.
    """
    wanted = _decode(await artifacts.call.body(), Batch)
    _check_batch(len(wanted.paths))
    answer: dict[str, Any] = {"artifacts": {}, "artifactContentInformation": {}, "errors": {}}
    for item in wanted.paths:
        try:
            path = check_path(item.path)
            place = artifacts.place(path)
            spot = await artifacts.store.locate(place, writing=True)
            blobs = artifacts.call.services.blobs
            await blobs.ensure_container(spot.account, spot.container)
            if await blobs.head(*spot) is not None:
                await blobs.delete(*spot)
        except NoribaError as error:
            if error.status >= 500:
                raise
            answer["errors"][item.path] = {"error": {"code": error.code, "message": error.message}}
            continue
        answer["artifacts"][item.path] = artifacts.artifact(path, None)
        answer["artifactContentInformation"][item.path] = artifacts.content(path, spot, "rcw")
    return answer


@routes.post(SERVICE + "/batch/metadata", action="read")
async def get_by_ids(call: Call) -> Any:
    """Artifacts by their ids (``<origin>/<container>/<path>``)."""
    wanted = _decode(await call.body(), BatchIds)
    _check_batch(len(wanted.artifact_ids))
    answer: dict[str, Any] = {"artifacts": {}, "artifactContentInformation": {}, "errors": {}}
    for identity in wanted.artifact_ids:
        origin, _, rest = identity.partition("/")
        container, _, path = rest.partition("/")
        artifacts = ArtifactCall(call, origin, container)
        try:
            blob, spot = await artifacts.existing(check_path(path))
        except NoribaError as error:
            if error.status >= 500:
                raise
            answer["errors"][identity] = {"error": {"code": error.code, "message": error.message}}
            continue
        answer["artifacts"][identity] = artifacts.artifact(path, blob)
        answer["artifactContentInformation"][identity] = artifacts.content(path, spot, "r")
    return answer


@_on("DELETE", "/metadata")
async def delete_artifact(artifacts: ArtifactCall) -> Any:
    """Delete an artifact."""
    await artifacts.store.delete(artifacts.place(artifacts.path))


@routes.get(RUN_ROOTS[0] + "/token")
@routes.get(RUN_ROOTS[1] + "/token")
async def refresh_token(call: Call) -> Any:
    """A fresh token for a job whose token expires soon; azureml-mlflow asks for it in the background."""
    principal = call.principal
    if principal.job != (call.workspace.id, call.params["run"]):
        raise Forbidden("Only the job itself gets a token for its run. Sign in as yourself (noriba env).")
    services = call.services
    token, expires = services.tokens.issue(
        principal, services.base_url, now=services.clock(), lifetime_s=LIFETIME_S
    )
    return {"token": token, "expiryTimeUtc": dt.datetime.fromtimestamp(expires, dt.UTC).isoformat()}


def _decode(body: bytes, shape: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The request body is not understood: {error}", code="InvalidJson") from error


def _check_batch(count: int) -> None:
    if count > MAX_BATCH:
        raise BadRequest(f"At most {MAX_BATCH} artifacts can be asked for at once, not {count}.")
