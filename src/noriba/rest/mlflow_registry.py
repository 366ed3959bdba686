"""MLflow's routes for registered models and model versions. Both are the workspace's model assets."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from noriba.models.errors import NoribaError
from noriba.rest import mlflow_wire as wire
from noriba.rest.mlflow import Api, MlflowCall, done, rendered
from noriba.rest.mlflow_experiments import Tag
from noriba.rest.mlflow_places import is_local, parse_address
from noriba.tracking import logged_models, registry, registry_search, runs
from noriba.tracking.artifacts import (
    DatastorePlace,
    ModelPlace,
    Place,
    RunPlace,
    model_folder,
    run_folder,
)
from noriba.tracking.errors import invalid, missing
from noriba.tracking.paging import offset_of, token_of
from noriba.tracking.validation import (
    check_alias,
    check_length,
    check_max_results,
    check_model_name,
    check_name,
    check_registry_tag,
)

api = Api()
MAX_DESCRIPTION = 5000 * 20
PROMPT_TAG = registry_search.PROMPT_TAG


class Model(msgspec.Struct):
    name: str = ""
    description: str | None = None
    tags: list[Tag] = []
    new_name: str = ""
    key: str = ""
    value: str | None = ""
    alias: str = ""
    version: str = ""
    stages: list[str] = []

    @property
    def checked(self) -> str:
        return check_model_name(self.name)


class Version(msgspec.Struct):
    name: str = ""
    version: str = ""
    source: str = ""
    run_id: str = ""
    run_link: str = ""
    model_id: str = ""
    description: str | None = None
    tags: list[Tag] = []
    key: str = ""
    value: str | None = ""
    stage: str = ""
    archive_existing_versions: bool = False

    @property
    def checked(self) -> tuple[str, str]:
        if not self.version:
            raise missing("version")
        return check_model_name(self.name), check_length("version", self.version, 255)


class Search(msgspec.Struct):
    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str | None = None


def _description(text: str | None) -> str:
    return check_length("description", text or "", MAX_DESCRIPTION)


# --- registered models


@api.post("/registered-models/create")
async def create_model(request: MlflowCall) -> Any:
    """Make a registered model."""
    wanted = await request.read(Model)
    name, description = wanted.checked, _description(wanted.description)
    tags = dict(check_registry_tag(tag.key, tag.value) for tag in wanted.tags)
    now = request.services.clock()
    made = await request.services.database.write(
        lambda connection: registry.create_model_in(
            connection,
            request.workspace.id,
            name,
            description=description,
            tags=tags,
            created_by=request.principal.name,
            now=now,
        )
    )
    return {"registered_model": wire.registered_model(made)}


@api.get("/registered-models/get")
async def get_model(request: MlflowCall) -> Any:
    """A registered model."""
    name = (await request.read(Model)).checked
    found = await request.services.database.read(
        lambda connection: registry.get_model_in(connection, request.workspace.id, name)
    )
    return {"registered_model": wire.registered_model(found)}


@api.patch("/registered-models/update")
async def update_model(request: MlflowCall) -> Any:
    """Describe a registered model."""
    wanted = await request.read(Model)
    name, description, now = (
        wanted.checked,
        _description(wanted.description),
        request.services.clock(),
    )
    changed = await request.services.database.write(
        lambda connection: registry.update_model_in(connection, request.workspace.id, name, description, now)
    )
    return {"registered_model": wire.registered_model(changed)}


@api.post("/registered-models/rename")
async def rename_model(request: MlflowCall) -> Any:
    """Rename a registered model."""
    wanted = await request.read(Model)
    name, new_name = wanted.checked, check_model_name(wanted.new_name, "new_name")
    now = request.services.clock()
    changed = await request.services.database.write(
        lambda connection: registry.rename_model_in(connection, request.workspace.id, name, new_name, now)
    )
    return {"registered_model": wire.registered_model(changed)}


@api.delete("/registered-models/delete")
async def delete_model(request: MlflowCall) -> Any:
    """Delete a registered model and its versions."""
    name = (await request.read(Model)).checked
    await request.services.database.write(
        lambda connection: registry.delete_model_in(connection, request.workspace.id, name)
    )
    return done()


@api.get("/registered-models/search")
@api.get("/registered-models/list")
async def search_models(request: MlflowCall) -> Any:
    """Find registered models."""
    wanted = await request.read(Search)
    limit = check_max_results(wanted.max_results, default=100, limit=1000)
    offset = offset_of(wanted.page_token)

    def read(connection: sa.Connection) -> bytes:
        found, more = registry_search.search_models_in(
            connection,
            request.workspace.id,
            filter_text=wanted.filter,
            order_by=wanted.order_by,
            limit=limit,
            offset=offset,
        )
        answer: dict[str, Any] = {"registered_models": [wire.registered_model(model) for model in found]}
        if more:
            answer["next_page_token"] = token_of(offset + limit)
        return msgspec.json.encode(answer)

    return rendered(await request.services.database.read(read, heavy=True))


@api.query("/registered-models/get-latest-versions")
@api.get("/registered-models/get-latest-versions")
async def get_latest_versions(request: MlflowCall) -> Any:
    """The newest version in each stage."""
    wanted = await request.read(Model)
    name = wanted.checked
    stages = {registry.check_stage(stage) for stage in wanted.stages or registry.STAGES}
    found = await request.services.database.read(
        lambda connection: registry.get_model_in(connection, request.workspace.id, name)
    )
    return {
        "model_versions": [wire.model_version(version) for version in found.latest if version.stage in stages]
    }


@api.post("/registered-models/set-tag")
async def set_model_tag(request: MlflowCall) -> Any:
    """Set a tag of a registered model."""
    wanted = await request.read(Model)
    name, (key, value) = wanted.checked, check_registry_tag(wanted.key, wanted.value)
    return await _set_model_tag(request, name, key, value)


@api.delete("/registered-models/delete-tag")
async def delete_model_tag(request: MlflowCall) -> Any:
    """Remove a tag of a registered model."""
    wanted = await request.read(Model)
    return await _set_model_tag(request, wanted.checked, check_name(wanted.key), None)


async def _set_model_tag(request: MlflowCall, name: str, key: str, value: str | None) -> Any:
    now = request.services.clock()
    await request.services.database.write(
        lambda connection: registry.set_model_tag_in(connection, request.workspace.id, name, key, value, now)
    )
    return done()


@api.post("/registered-models/alias")
async def set_alias(request: MlflowCall) -> Any:
    """Point an alias at a version."""
    wanted = await request.read(Model)
    name, alias = wanted.checked, check_alias(wanted.alias, new=True)
    if not wanted.version:
        raise missing("version")
    await request.services.database.write(
        lambda connection: registry.set_alias_in(
            connection, request.workspace.id, name, alias, wanted.version
        )
    )
    return done()


@api.delete("/registered-models/alias")
async def delete_alias(request: MlflowCall) -> Any:
    """Remove an alias."""
    wanted = await request.read(Model)
    name, alias = wanted.checked, check_alias(wanted.alias)
    await request.services.database.write(
        lambda connection: registry.delete_alias_in(connection, request.workspace.id, name, alias)
    )
    return done()


@api.get("/registered-models/alias")
async def get_by_alias(request: MlflowCall) -> Any:
    """The version that an alias points at."""
    wanted = await request.read(Model)
    name, alias = wanted.checked, check_alias(wanted.alias)
    found = await request.services.database.read(
        lambda connection: registry.get_by_alias_in(connection, request.workspace.id, name, alias)
    )
    return {"model_version": wire.model_version(found)}


# --- versions


@api.post("/model-versions/create")
async def create_version(request: MlflowCall) -> Any:
    """Register the next version of a model."""
    wanted = await request.read(Version)
    name = check_model_name(wanted.name)
    if not wanted.source:
        raise missing("source")
    tags = dict(check_registry_tag(tag.key, tag.value) for tag in wanted.tags)
    source = check_length("source", wanted.source, 2000)
    is_prompt = tags.get(PROMPT_TAG, "").lower() == "true"
    place = None if is_prompt else _place_of(source)
    now = request.services.clock()
    user = request.principal.name
    workspace = request.workspace
    description = _description(wanted.description)

    def write(connection: sa.Connection) -> registry.ModelVersion:
        run_id, model_id = wanted.run_id, wanted.model_id
        uri = source
        if urlsplit(source).scheme == "models" and not is_prompt:
            uri, run_id, model_id = _of_models_uri(connection, workspace.id, source, run_id, model_id)
            found = _place_of(uri)
        else:
            found = place
        if found is not None:
            uri, lineage = _asset_uri(connection, workspace.id, workspace.arm_id, found)
            run_id = run_id or lineage
        return registry.create_version_in(
            connection,
            workspace.id,
            name,
            source=source,
            uri=uri,
            run_id=run_id,
            run_link=wanted.run_link,
            model_id=model_id,
            description=description,
            tags=tags,
            user=user,
            now=now,
        )

    return {"model_version": wire.model_version(await request.services.database.write(write))}


def _place_of(source: str) -> Place | None:
    """Where a source is in this server's storage; None elsewhere. Raises BadRequest for what nobody else can reach."""
    if is_local(source):
        raise invalid(
            f"Invalid model version source: '{source[:200]}'. It is a path of your machine; log the model to a run "
            "first and register that."
        )
    if ".." in urlsplit(source).path.split("/"):
        raise invalid(f"Invalid model version source: '{source[:200]}' must not have '..' in its path.")
    return parse_address(source)


def _of_models_uri(
    connection: sa.Connection, workspace_id: str, source: str, run_id: str, model_id: str
) -> tuple[str, str, str]:
    """``models:/<model id>`` and ``models:/<name>/<version>`` as (address, run, model id). Raises NotFound."""
    parts = urlsplit(source).path.strip("/").split("/")
    if len(parts) == 1 and "@" not in parts[0]:
        model = logged_models.get_in(connection, workspace_id, parts[0])
        return f"mlflow-artifacts:/0/models/{model.id}/artifacts", run_id or model.source_run_id, model.id
    if len(parts) == 1:
        name, _, alias = parts[0].rpartition("@")
        found = registry.get_by_alias_in(connection, workspace_id, name, alias)
    else:
        found = registry.get_version_in(connection, workspace_id, parts[0], parts[1])
    return found.uri, run_id or found.run_id, model_id or found.model_id


def _asset_uri(connection: sa.Connection, workspace_id: str, arm_id: str, place: Place) -> tuple[str, str]:
    """The address of a place as a model asset has it, and the run it comes from. Raises NotFound."""
    run_id = ""
    datastore = "workspaceartifactstore"
    match place:
        case RunPlace(run_id, path):
            runs.row_in(connection, workspace_id, run_id)
            blob = run_folder(run_id).blob(path)
        case ModelPlace(model_id, path):
            model = logged_models.get_in(connection, workspace_id, model_id, allow_deleted=True)
            run_id = model.source_run_id
            blob = model_folder(model.id, model.source_run_id, model.folder).blob(path)
        case DatastorePlace(datastore, path):
            blob = path
        case _:
            blob = f"{place.origin}/{place.container}/{place.path}"
    scope = arm_id.replace("/providers/Microsoft.MachineLearningServices", "").replace(
        "/resourceGroups/", "/resourcegroups/"
    )
    return f"azureml:/{scope}/datastores/{datastore}/paths/{blob.rstrip('/')}", run_id


@api.get("/model-versions/get")
async def get_version(request: MlflowCall) -> Any:
    """A model version."""
    name, version = (await request.read(Version)).checked
    found = await request.services.database.read(
        lambda connection: registry.get_version_in(connection, request.workspace.id, name, version)
    )
    return {"model_version": wire.model_version(found)}


@api.patch("/model-versions/update")
async def update_version(request: MlflowCall) -> Any:
    """Describe a model version."""
    wanted = await request.read(Version)
    name, version = wanted.checked
    description, now = _description(wanted.description), request.services.clock()
    changed = await request.services.database.write(
        lambda connection: registry.update_version_in(
            connection, request.workspace.id, name, version, description, now
        )
    )
    return {"model_version": wire.model_version(changed)}


@api.post("/model-versions/transition-stage")
async def transition_stage(request: MlflowCall) -> Any:
    """Move a model version to another stage."""
    wanted = await request.read(Version)
    name, version = wanted.checked
    if not wanted.stage:
        raise missing("stage")
    now = request.services.clock()
    changed = await request.services.database.write(
        lambda connection: registry.transition_in(
            connection,
            request.workspace.id,
            name,
            version,
            wanted.stage,
            archive_others=wanted.archive_existing_versions,
            now=now,
        )
    )
    return {"model_version": wire.model_version(changed)}


@api.delete("/model-versions/delete")
async def delete_version(request: MlflowCall) -> Any:
    """Delete a model version."""
    name, version = (await request.read(Version)).checked
    now = request.services.clock()
    await request.services.database.write(
        lambda connection: registry.delete_version_in(connection, request.workspace.id, name, version, now)
    )
    return done()


@api.get("/model-versions/search")
async def search_versions(request: MlflowCall) -> Any:
    """Find model versions."""
    wanted = await request.read(Search)
    limit = check_max_results(wanted.max_results, default=10_000, limit=200_000)
    offset = offset_of(wanted.page_token)

    def read(connection: sa.Connection) -> bytes:
        found, more = registry_search.search_versions_in(
            connection,
            request.workspace.id,
            filter_text=wanted.filter,
            order_by=wanted.order_by,
            limit=limit,
            offset=offset,
        )
        answer: dict[str, Any] = {"model_versions": [wire.model_version(version) for version in found]}
        if more:
            answer["next_page_token"] = token_of(offset + limit)
        return msgspec.json.encode(answer)

    return rendered(await request.services.database.read(read, heavy=True))


@api.get("/model-versions/get-download-uri")
async def get_download_uri(request: MlflowCall) -> Any:
    """Where a model version's files are, as this client can read them."""
    name, version = (await request.read(Version)).checked
    found = await request.services.database.read(
        lambda connection: registry.get_version_in(connection, request.workspace.id, name, version)
    )
    return {"artifact_uri": _download_uri(request, found)}


def _download_uri(request: MlflowCall, version: registry.ModelVersion) -> str:
    try:
        place = parse_address(version.uri)
    except NoribaError:
        place = None
    return version.uri if place is None else request.places.place(place)


@api.post("/model-versions/set-tag")
async def set_version_tag(request: MlflowCall) -> Any:
    """Set a tag of a model version."""
    wanted = await request.read(Version)
    key, value = check_registry_tag(wanted.key, wanted.value)
    return await _set_version_tag(request, wanted.checked, key, value)


@api.delete("/model-versions/delete-tag")
async def delete_version_tag(request: MlflowCall) -> Any:
    """Remove a tag of a model version."""
    wanted = await request.read(Version)
    return await _set_version_tag(request, wanted.checked, check_name(wanted.key), None)


async def _set_version_tag(request: MlflowCall, which: tuple[str, str], key: str, value: str | None) -> Any:
    now = request.services.clock()
    await request.services.database.write(
        lambda connection: registry.set_version_tag_in(
            connection, request.workspace.id, *which, key, value, now
        )
    )
    return done()
