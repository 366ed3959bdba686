"""MLflow's routes for logged models (MLflow 3)."""

from __future__ import annotations

import random
import uuid
from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.rest import mlflow_wire as wire
from noriba.rest.mlflow import Api, MlflowCall, done, rendered
from noriba.rest.mlflow_experiments import Tag
from noriba.tracking import logged_model_search, logged_models
from noriba.tracking.errors import invalid, invalid_value
from noriba.tracking.logged_model_search import DatasetChoice, ModelOrder
from noriba.tracking.names import random_name
from noriba.tracking.paging import offset_of, token_of
from noriba.tracking.validation import (
    check_experiment_id,
    check_length,
    check_logged_model_name,
    check_max_results,
    check_name,
    check_param,
    check_tag,
)

api = Api()
_random = random.SystemRandom()


class Create(msgspec.Struct):
    experiment_id: str = ""
    name: str = ""
    model_type: str = ""
    source_run_id: str = ""
    params: list[Tag] = []
    tags: list[Tag] = []


class Change(msgspec.Struct):
    status: str | int = 0
    tags: list[Tag] = []
    params: list[Tag] = []


class Get(msgspec.Struct):
    allow_deleted: bool = False


class SearchDataset(msgspec.Struct):
    dataset_name: str = ""
    dataset_digest: str | None = None


class SearchOrder(msgspec.Struct):
    field_name: str = ""
    ascending: bool = True
    dataset_name: str | None = None
    dataset_digest: str | None = None


class Search(msgspec.Struct):
    experiment_ids: list[str] = []
    filter: str | None = None
    datasets: list[SearchDataset] = []
    max_results: int | None = None
    order_by: list[SearchOrder] = []
    page_token: str | None = None


@api.post("/logged-models")
async def create(request: MlflowCall) -> Any:
    """Make a logged model; its files are uploaded after this."""
    wanted = await request.read(Create)
    experiment_id = check_experiment_id(wanted.experiment_id)
    name = check_logged_model_name(wanted.name or random_name(_random))
    params = dict(check_param(param.key, param.value) for param in wanted.params)
    tags = dict(check_tag(tag.key, tag.value) for tag in wanted.tags)
    model_id = f"m-{uuid.uuid4().hex}"
    now_ms = request.now_ms
    await request.services.tracking.ensure_default(request.workspace.id, request.services.clock())
    if wanted.source_run_id:
        await request.services.tracking.open_run(request.workspace.id, wanted.source_run_id)
    made = await request.services.database.write(
        lambda connection: logged_models.create_in(
            connection,
            request.workspace.id,
            model_id=model_id,
            experiment_id=experiment_id,
            name=name,
            model_type=check_length("model_type", wanted.model_type, 500),
            source_run_id=wanted.source_run_id,
            params=params,
            tags=tags,
            now_ms=now_ms,
        )
    )
    return {"model": wire.logged_model(made, request.places)}


@api.get("/logged-models/{model_id}")
async def get(request: MlflowCall) -> Any:
    """A logged model."""
    wanted = await request.read(Get)
    found = await request.services.database.read(
        lambda connection: logged_models.get_in(
            connection,
            request.workspace.id,
            request.params["model_id"],
            allow_deleted=wanted.allow_deleted,
        )
    )
    return {"model": wire.logged_model(found, request.places)}


@api.patch("/logged-models/{model_id}")
async def finalize(request: MlflowCall) -> Any:
    """Say how the upload of the model's files ended."""
    status = _status_of((await request.read(Change)).status)
    now_ms = request.now_ms
    found = await request.services.database.write(
        lambda connection: logged_models.finalize_in(
            connection, request.workspace.id, request.params["model_id"], status, now_ms
        )
    )
    return {"model": wire.logged_model(found, request.places)}


def _status_of(status: str | int) -> str:
    if isinstance(status, int):
        known = logged_models.STATUSES.get(status)
    else:
        known = status.removeprefix("LOGGED_MODEL_").removeprefix("STATUS_")
    if known not in logged_models.STATUSES.values():
        raise invalid_value("status", status, "Use LOGGED_MODEL_READY or LOGGED_MODEL_UPLOAD_FAILED.")
    return str(known)


@api.delete("/logged-models/{model_id}")
async def delete(request: MlflowCall) -> Any:
    """Mark a logged model deleted."""
    now_ms = request.now_ms
    await request.services.database.write(
        lambda connection: logged_models.delete_in(
            connection, request.workspace.id, request.params["model_id"], now_ms
        )
    )
    return done()


@api.patch("/logged-models/{model_id}/tags")
async def set_tags(request: MlflowCall) -> Any:
    """Set tags of a logged model."""
    wanted = await request.read(Change)
    tags = dict(check_tag(tag.key, tag.value) for tag in wanted.tags)
    found = await request.services.database.write(
        lambda connection: logged_models.set_tags_in(
            connection, request.workspace.id, request.params["model_id"], tags
        )
    )
    return {"model": wire.logged_model(found, request.places)}


@api.delete("/logged-models/{model_id}/tags/{key}")
async def delete_tag(request: MlflowCall) -> Any:
    """Remove a tag of a logged model."""
    key = check_name(request.params["key"])
    await request.services.database.write(
        lambda connection: logged_models.delete_tag_in(
            connection, request.workspace.id, request.params["model_id"], key
        )
    )
    return done()


@api.post("/logged-models/{model_id}/params")
async def log_params(request: MlflowCall) -> Any:
    """Add params to a logged model."""
    wanted = await request.read(Change)
    params = dict(check_param(param.key, param.value) for param in wanted.params)
    await request.services.database.write(
        lambda connection: logged_models.log_params_in(
            connection, request.workspace.id, request.params["model_id"], params
        )
    )
    return done()


@api.query("/logged-models/search")
async def search(request: MlflowCall) -> Any:
    """Find logged models."""
    wanted = await request.read(Search)
    limit = check_max_results(wanted.max_results, default=100, limit=1000)
    offset = offset_of(wanted.page_token)
    if any(not dataset.dataset_name for dataset in wanted.datasets):
        raise invalid("`dataset_name` in the `datasets` clause must be specified.")
    datasets = [
        DatasetChoice(dataset.dataset_name, dataset.dataset_digest or None) for dataset in wanted.datasets
    ]
    orders = [
        ModelOrder(
            order.field_name,
            order.ascending,
            DatasetChoice(order.dataset_name, order.dataset_digest or None) if order.dataset_name else None,
        )
        for order in wanted.order_by
    ]

    def read(connection: sa.Connection) -> bytes:
        found, more = logged_model_search.search_in(
            connection,
            request.workspace.id,
            experiment_ids=wanted.experiment_ids,
            filter_text=wanted.filter,
            datasets=datasets,
            order_by=orders,
            limit=limit,
            offset=offset,
        )
        answer: dict[str, Any] = {"models": [wire.logged_model(model, request.places) for model in found]}
        if more:
            answer["next_page_token"] = token_of(offset + limit)
        return msgspec.json.encode(answer)

    return rendered(await request.services.database.read(read, heavy=True))
