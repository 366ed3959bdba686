"""MLflow's routes for model versions, which are versions of the workspace's model assets."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from noriba.models.errors import NoribaError
from noriba.rest import mlflow_sources as sources
from noriba.rest import mlflow_wire as wire
from noriba.rest.mlflow import Api, MlflowCall, done, rendered
from noriba.rest.mlflow_experiments import Tag
from noriba.rest.mlflow_places import parse_address
from noriba.rest.mlflow_registry import Search, description_of
from noriba.tracking import registry, registry_rows, registry_search
from noriba.tracking.errors import missing
from noriba.tracking.paging import offset_of, token_of
from noriba.tracking.validation import (
    check_length,
    check_max_results,
    check_model_name,
    check_name,
    check_registry_tag,
)

api = Api()


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


@api.post("/model-versions/create")
async def create_version(request: MlflowCall) -> Any:
    """Register the next version of a model."""
    wanted = await request.read(Version)
    name = check_model_name(wanted.name)
    if not wanted.source:
        raise missing("source")
    tags = dict(check_registry_tag(tag.key, tag.value) for tag in wanted.tags)
    source = check_length("source", wanted.source, 2000)
    is_prompt = tags.get(registry_search.PROMPT_TAG, "").lower() == "true"
    place = None if is_prompt else sources.place_of(source)
    now = request.services.clock()
    user = request.principal.name
    workspace = request.workspace
    description = description_of(wanted.description)

    def write(connection: sa.Connection) -> registry_rows.ModelVersion:
        run_id, model_id = wanted.run_id, wanted.model_id
        uri = source
        if urlsplit(source).scheme == "models" and not is_prompt:
            uri, run_id, model_id = sources.of_models_uri(connection, workspace.id, source, run_id, model_id)
            found = sources.place_of(uri)
        else:
            found = place
        if found is not None:
            uri, lineage = sources.asset_uri(connection, workspace.id, workspace.arm_id, found)
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
    description, now = description_of(wanted.description), request.services.clock()
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


def _download_uri(request: MlflowCall, version: registry_rows.ModelVersion) -> str:
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
