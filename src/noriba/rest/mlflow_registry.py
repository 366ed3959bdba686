"""MLflow's routes for registered models, which are the workspace's model assets."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.rest import mlflow_wire as wire
from noriba.rest.mlflow import Api, MlflowCall, done, rendered
from noriba.rest.mlflow_experiments import Tag
from noriba.tracking import registry, registry_rows, registry_search
from noriba.tracking.errors import missing
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


class Search(msgspec.Struct):
    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str | None = None


def description_of(text: str | None) -> str:
    """A description that is not too long."""
    return check_length("description", text or "", MAX_DESCRIPTION)


@api.post("/registered-models/create")
async def create_model(request: MlflowCall) -> Any:
    """Make a registered model."""
    wanted = await request.read(Model)
    name, description = wanted.checked, description_of(wanted.description)
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
        description_of(wanted.description),
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
    stages = {registry.check_stage(stage) for stage in wanted.stages or registry_rows.STAGES}
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
