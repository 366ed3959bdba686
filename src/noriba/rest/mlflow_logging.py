"""MLflow's routes that log to a run. The first four are the hottest of the server: typed decoding, one look-up in a
cache, one write."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.rest.mlflow import Api, MlflowCall, decode, done
from noriba.rest.mlflow_experiments import Tag
from noriba.rest.mlflow_runs import ById
from noriba.tracking import logged_models, metrics, runs
from noriba.tracking.errors import invalid, missing
from noriba.tracking.metrics import Point
from noriba.tracking.runs import Dataset
from noriba.tracking.validation import (
    MAX_DATASET_DIGEST,
    MAX_DATASET_NAME,
    MAX_DATASET_PROFILE,
    MAX_DATASET_SCHEMA,
    MAX_DATASET_SOURCE,
    MAX_DATASETS,
    check_batch,
    check_length,
    check_name,
    check_param,
    check_run_id,
    check_step,
    check_tag,
    check_timestamp,
)

api = Api()


class Metric(msgspec.Struct):
    key: str | None = None
    value: float | None = None
    timestamp: int | None = None
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LogMetric(Metric):
    run_id: str = ""
    run_uuid: str = ""


class Pair(msgspec.Struct):
    key: str | None = None
    value: str | None = None


class LogPair(Pair):
    run_id: str = ""
    run_uuid: str = ""


class LogBatch(msgspec.Struct):
    run_id: str = ""
    metrics: list[Metric] = []
    params: list[Pair] = []
    tags: list[Pair] = []


class LogModel(msgspec.Struct):
    run_id: str = ""
    model_json: str = ""


class WireDataset(msgspec.Struct):
    name: str = ""
    digest: str = ""
    source_type: str = ""
    source: str = ""
    schema: str | None = None
    profile: str | None = None


class DatasetInput(msgspec.Struct):
    dataset: WireDataset
    tags: list[Tag] = []


class ModelReference(msgspec.Struct):
    model_id: str = ""
    step: int = 0


class LogInputs(msgspec.Struct):
    run_id: str = ""
    datasets: list[DatasetInput] = []
    models: list[ModelReference] = []


class LogOutputs(msgspec.Struct):
    run_id: str = ""
    models: list[ModelReference] = []


class DeleteTag(ById):
    key: str = ""


_log_metric = msgspec.json.Decoder(LogMetric, strict=False)
_log_pair = msgspec.json.Decoder(LogPair, strict=False)
_log_batch = msgspec.json.Decoder(LogBatch, strict=False)


def _point(metric: Metric, path: str = "") -> Point:
    key = check_name(metric.key, f"{path}key")
    if metric.value is None:
        raise missing(f"{path}value")
    return Point(
        key,
        metric.value,
        check_timestamp(metric.timestamp, f"{path}timestamp"),
        check_step(metric.step, f"{path}step"),
        metric.model_id or None,
        metric.dataset_name or None,
        metric.dataset_digest or None,
    )


@api.post("/runs/log-metric")
async def log_metric(request: MlflowCall) -> Any:
    """Log one point."""
    wanted = decode(await request.call.body(), _log_metric)
    run_id = check_run_id(wanted.run_id or wanted.run_uuid)
    point = _point(wanted)
    run = await request.services.tracking.open_run(request.workspace.id, run_id)

    def write(connection: sa.Connection) -> None:
        metrics.add_points_in(connection, run.key, (point,))
        if point.model_id:
            logged_models.add_metrics_in(connection, request.workspace.id, run_id, (point,))

    await request.services.database.write(write)
    return done()


@api.post("/runs/log-parameter")
async def log_parameter(request: MlflowCall) -> Any:
    """Log one param."""
    wanted = decode(await request.call.body(), _log_pair)
    run_id = check_run_id(wanted.run_id or wanted.run_uuid)
    param = check_param(wanted.key, wanted.value)
    run = await request.services.tracking.open_run(request.workspace.id, run_id)
    await request.services.database.write(
        lambda connection: runs.add_params_in(connection, run.key, run_id, (param,))
    )
    return done()


@api.post("/runs/set-tag")
async def set_tag(request: MlflowCall) -> Any:
    """Set one tag."""
    wanted = decode(await request.call.body(), _log_pair)
    run_id = check_run_id(wanted.run_id or wanted.run_uuid)
    tag = check_tag(wanted.key, wanted.value)
    run = await request.services.tracking.open_run(request.workspace.id, run_id)
    await request.services.database.write(lambda connection: runs.set_tags_in(connection, run.key, (tag,)))
    return done()


@api.post("/runs/log-batch")
async def log_batch(request: MlflowCall) -> Any:
    """Log points, params and tags: all of them or, when one is refused, none."""
    await _log_all(request)
    return done()


async def _log_all(request: MlflowCall) -> None:
    wanted = decode(await request.call.body(), _log_batch)
    run_id = check_run_id(wanted.run_id)
    points = [_point(metric, f"metrics[{index}].") for index, metric in enumerate(wanted.metrics)]
    params = [check_param(pair.key, pair.value, f"params[{i}].") for i, pair in enumerate(wanted.params)]
    tags = [check_tag(pair.key, pair.value, f"tags[{index}].") for index, pair in enumerate(wanted.tags)]
    check_batch(len(points), params, len(tags))
    run = await request.services.tracking.open_run(request.workspace.id, run_id)
    with_models = [point for point in points if point.model_id]

    def write(connection: sa.Connection) -> None:
        runs.add_params_in(connection, run.key, run_id, params)
        if points:
            metrics.add_points_in(connection, run.key, points)
        if with_models:
            logged_models.add_metrics_in(connection, request.workspace.id, run_id, with_models)
        if tags:
            runs.set_tags_in(connection, run.key, tags)

    await request.services.database.write(write)


async def log_batch_async(request: MlflowCall) -> Any:
    """azureml-mlflow's asynchronous batch. It is done when this answers, so there is nothing to wait for."""
    await _log_all(request)
    return {"batch_tracking_id": ""}


async def get_run_data_status(request: MlflowCall) -> Any:
    """Whether an asynchronous batch is stored: it always is."""
    return {"is_complete": True}


@api.post("/runs/delete-tag")
async def delete_tag(request: MlflowCall) -> Any:
    """Remove a tag."""
    wanted = await request.read(DeleteTag)
    run_id, key = wanted.checked, check_name(wanted.key)
    await request.services.database.write(
        lambda connection: runs.delete_tag_in(connection, request.workspace.id, run_id, key)
    )
    return done()


@api.post("/runs/log-model")
async def log_model(request: MlflowCall) -> Any:
    """Note a model in the run's history of models (MLflow 2)."""
    wanted = await request.read(LogModel)
    run_id = check_run_id(wanted.run_id)
    if not wanted.model_json:
        raise missing("model_json")
    try:
        model = msgspec.json.decode(wanted.model_json, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise invalid(f"Malformed model info: it is not a valid JSON object ({error}).") from error
    lacking = {"artifact_path", "flavors", "utc_time_created", "run_id"} - model.keys()
    if lacking:
        raise invalid(f"Model json is missing mandatory fields: {sorted(lacking)}")
    await request.services.database.write(
        lambda connection: runs.add_logged_model_in(connection, request.workspace.id, run_id, model)
    )
    return done()


@api.post("/runs/log-inputs")
async def log_inputs(request: MlflowCall) -> Any:
    """Note datasets and models that a run read."""
    wanted = await request.read(LogInputs)
    run_id = check_run_id(wanted.run_id)
    if len(wanted.datasets) > MAX_DATASETS:
        raise invalid(f"A request can contain at most {MAX_DATASETS} datasets.")
    datasets = [_dataset(found, f"datasets[{index}].") for index, found in enumerate(wanted.datasets)]
    models = [(_model_id(model), 0) for model in wanted.models]
    run = await request.services.tracking.open_run(request.workspace.id, run_id)

    def write(connection: sa.Connection) -> None:
        runs.add_datasets_in(connection, run.key, datasets)
        runs.add_models_in(connection, run.key, "input", models)

    await request.services.database.write(write)
    return done()


def _dataset(found: DatasetInput, path: str) -> Dataset:
    dataset = found.dataset
    for field, limit in (
        ("name", MAX_DATASET_NAME),
        ("digest", MAX_DATASET_DIGEST),
        ("source_type", MAX_DATASET_NAME),
        ("source", MAX_DATASET_SOURCE),
        ("schema", MAX_DATASET_SCHEMA),
        ("profile", MAX_DATASET_PROFILE),
    ):
        value = getattr(dataset, field)
        if value is None:
            continue
        if not value and field in ("name", "digest", "source_type", "source"):
            raise missing(f"{path}dataset.{field}")
        check_length(field, value, limit)
    document = {key: value for key, value in msgspec.structs.asdict(dataset).items() if value is not None}
    tags = []
    for tag in found.tags:
        if not tag.key:
            raise missing(f"{path}tags.key")
        check_length("key", tag.key, 255)
        tags.append({"key": tag.key, "value": check_length("value", tag.value or "", 500)})
    return Dataset(document=document, tags=tags)


@api.post("/runs/outputs")
async def log_outputs(request: MlflowCall) -> Any:
    """Note logged models that a run made."""
    wanted = await request.read(LogOutputs)
    run_id = check_run_id(wanted.run_id)
    if not wanted.models:
        raise missing("models")
    models = [(_model_id(model), check_step(model.step)) for model in wanted.models]
    run = await request.services.tracking.open_run(request.workspace.id, run_id)
    await request.services.database.write(
        lambda connection: runs.add_models_in(connection, run.key, "output", models)
    )
    return done()


def _model_id(model: ModelReference) -> str:
    if not model.model_id:
        raise missing("model_id")
    return check_length("model_id", model.model_id, 256)
