"""MLflow's routes for experiments."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from noriba.rest import mlflow_wire as wire
from noriba.rest.mlflow import Api, MlflowCall, done, rendered
from noriba.rest.mlflow_places import is_local
from noriba.tracking import experiments, runs
from noriba.tracking.errors import invalid, missing
from noriba.tracking.experiments import View
from noriba.tracking.paging import offset_of, token_of
from noriba.tracking.validation import (
    check_experiment_id,
    check_experiment_name,
    check_experiment_tag,
    check_max_results,
    check_name,
)

api = Api()

REMOTE_LOCATIONS = frozenset(
    {"s3", "gs", "abfss", "abfs", "wasbs", "wasb", "hdfs", "viewfs", "dbfs", "ftp", "sftp"}
)
"""Schemes of artifact locations that clients write to by themselves."""


class Tag(msgspec.Struct):
    key: str = ""
    value: str | None = ""


class ById(msgspec.Struct):
    experiment_id: str = ""


class ByName(msgspec.Struct):
    experiment_name: str = ""


class Create(msgspec.Struct):
    name: str = ""
    artifact_location: str = ""
    tags: list[Tag] = []


class Update(msgspec.Struct):
    experiment_id: str = ""
    new_name: str = ""


class SetTag(msgspec.Struct):
    experiment_id: str = ""
    key: str = ""
    value: str | None = ""


class Search(msgspec.Struct):
    max_results: int | None = None
    page_token: str | None = None
    filter: str | None = None
    order_by: list[str] = []
    view_type: View | int = "ACTIVE_ONLY"


class SearchDatasets(msgspec.Struct):
    experiment_ids: list[str] = []


VIEWS: dict[int, View] = {1: "ACTIVE_ONLY", 2: "DELETED_ONLY", 3: "ALL"}
"""MLflow's numbers for view types."""


def view_of(value: View | int) -> View:
    """A view type, by name or number. Raises BadRequest."""
    if isinstance(value, int):
        if value not in VIEWS:
            raise invalid(f"Invalid view type {value}. Use 1 (active), 2 (deleted) or 3 (all).")
        return VIEWS[value]
    return value


@api.post("/experiments/create")
async def create(request: MlflowCall) -> Any:
    """Make an experiment."""
    wanted = await request.read(Create)
    name = check_experiment_name(wanted.name)
    location = _check_location(wanted.artifact_location)
    tags = dict(check_experiment_tag(tag.key, tag.value) for tag in wanted.tags)
    await request.services.tracking.ensure_default(request.workspace.id, request.services.clock())
    now_ms = request.now_ms
    experiment_id = await request.services.database.write(
        lambda connection: experiments.create_in(
            connection,
            request.workspace.id,
            name,
            tags=tags,
            artifact_location=location,
            now_ms=now_ms,
        )
    )
    return {"experiment_id": experiment_id}


def _check_location(location: str) -> str | None:
    """Where clients keep the artifacts themselves; None for the server's own storage."""
    if not location:
        return None
    if is_local(location) or urlsplit(location).scheme not in REMOTE_LOCATIONS:
        raise invalid(
            f"Invalid artifact location '{location[:200]}'. Leave it out so that artifacts are kept with the "
            f"workspace, or use remote storage ({', '.join(sorted(REMOTE_LOCATIONS))})."
        )
    if len(location) > 2048 or ".." in location or "?" in location or "#" in location:
        raise invalid("Invalid artifact location: at most 2048 characters, no '..', query or fragment.")
    return location


@api.get("/experiments/get")
async def get(request: MlflowCall) -> Any:
    """An experiment by id."""
    experiment_id = check_experiment_id((await request.read(ById)).experiment_id)
    await request.services.tracking.ensure_default(request.workspace.id, request.services.clock())
    found = await request.services.database.read(
        lambda connection: experiments.get_in(connection, request.workspace.id, experiment_id)
    )
    return {"experiment": wire.experiment(found, request.places)}


@api.get("/experiments/get-by-name")
async def get_by_name(request: MlflowCall) -> Any:
    """An experiment by name."""
    name = (await request.read(ByName)).experiment_name
    if not name:
        raise missing("experiment_name")
    await request.services.tracking.ensure_default(request.workspace.id, request.services.clock())
    found = await request.services.database.read(
        lambda connection: experiments.get_by_name_in(connection, request.workspace.id, name)
    )
    return {"experiment": wire.experiment(found, request.places)}


@api.post("/experiments/update")
async def update(request: MlflowCall) -> Any:
    """Rename an experiment."""
    wanted = await request.read(Update)
    check_experiment_id(wanted.experiment_id)
    if not wanted.new_name:
        raise missing("new_name")
    name = check_experiment_name(wanted.new_name)
    now_ms = request.now_ms
    await request.services.database.write(
        lambda connection: experiments.rename_in(
            connection, request.workspace.id, wanted.experiment_id, name, now_ms
        )
    )
    return done()


@api.post("/experiments/delete")
async def delete(request: MlflowCall) -> Any:
    """Mark an experiment and its runs deleted."""
    return await _set_lifecycle(request, "deleted")


@api.post("/experiments/restore")
async def restore(request: MlflowCall) -> Any:
    """Bring a deleted experiment and its runs back."""
    return await _set_lifecycle(request, "active")


async def _set_lifecycle(request: MlflowCall, stage: str) -> Any:
    experiment_id = check_experiment_id((await request.read(ById)).experiment_id)
    now_ms = request.now_ms
    await request.services.database.write(
        lambda connection: experiments.set_lifecycle_in(
            connection, request.workspace.id, experiment_id, stage, now_ms
        )
    )
    request.services.tracking.forget_runs()
    return done()


@api.post("/experiments/set-experiment-tag")
async def set_tag(request: MlflowCall) -> Any:
    """Set a tag of an experiment."""
    wanted = await request.read(SetTag)
    check_experiment_id(wanted.experiment_id)
    key, value = check_experiment_tag(wanted.key, wanted.value)
    await request.services.database.write(
        lambda connection: experiments.set_tag_in(
            connection, request.workspace.id, wanted.experiment_id, key, value
        )
    )
    return done()


@api.post("/experiments/delete-experiment-tag")
async def delete_tag(request: MlflowCall) -> Any:
    """Remove a tag of an experiment."""
    wanted = await request.read(SetTag)
    check_experiment_id(wanted.experiment_id)
    key = check_name(wanted.key)
    await request.services.database.write(
        lambda connection: experiments.delete_tag_in(
            connection, request.workspace.id, wanted.experiment_id, key
        )
    )
    return done()


@api.query("/experiments/search")
@api.get("/experiments/search")
@api.get("/experiments/list")
async def search(request: MlflowCall) -> Any:
    """Find experiments."""
    wanted = await request.read(Search)
    limit = check_max_results(wanted.max_results, default=1000, limit=50_000)
    offset = offset_of(wanted.page_token)
    view = view_of(wanted.view_type)
    await request.services.tracking.ensure_default(request.workspace.id, request.services.clock())

    def read(connection: sa.Connection) -> bytes:
        found, more = experiments.search_in(
            connection,
            request.workspace.id,
            filter_text=wanted.filter,
            order_by=wanted.order_by,
            view=view,
            limit=limit,
            offset=offset,
        )
        answer: dict[str, Any] = {
            "experiments": [wire.experiment(experiment, request.places) for experiment in found]
        }
        if more:
            answer["next_page_token"] = token_of(offset + limit)
        return msgspec.json.encode(answer)

    return rendered(await request.services.database.read(read, heavy=True))


@api.query("/experiments/search-datasets")
async def search_datasets(request: MlflowCall) -> Any:
    """The datasets that the runs of experiments read."""
    wanted = await request.read(SearchDatasets)
    if not 0 < len(wanted.experiment_ids) <= 20:
        raise invalid("SearchDatasets request must specify between 1 and 20 experiment_ids.")
    rows = await request.services.database.read(
        lambda connection: runs.datasets_of_experiments_in(
            connection, request.workspace.id, wanted.experiment_ids
        ),
        heavy=True,
    )
    return {
        "dataset_summaries": [
            {
                "experiment_id": row.experiment_id,
                "name": row.name,
                "digest": row.digest,
                "context": row.context,
            }
            for row in rows
        ]
    }
