"""MLflow's documents: what runs, experiments and models look like on the wire."""

from __future__ import annotations

import math
from typing import Any

from noriba.rest.mlflow_places import Places
from noriba.tracking.experiments import Experiment
from noriba.tracking.logged_models import LoggedModel
from noriba.tracking.metrics import Point
from noriba.tracking.registry_rows import ModelVersion, RegisteredModel
from noriba.tracking.runs import Run


def number(value: float) -> float | str:
    """A double in protobuf's JSON, which has words for what JSON has no numbers for."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def pairs(values: dict[str, str]) -> list[dict[str, str]]:
    """Tags or params."""
    return [{"key": key, "value": value} for key, value in values.items()]


def metric(point: Point) -> dict[str, Any]:
    """A metric's point."""
    document: dict[str, Any] = {
        "key": point.key,
        "value": number(point.value),
        "timestamp": point.timestamp_ms,
        "step": point.step,
    }
    if point.model_id:
        document["model_id"] = point.model_id
    if point.dataset_name:
        document["dataset_name"] = point.dataset_name
        document["dataset_digest"] = point.dataset_digest or ""
    return document


def experiment(found: Experiment, places: Places) -> dict[str, Any]:
    """MLflow's Experiment."""
    return {
        "experiment_id": found.id,
        "name": found.name,
        "artifact_location": found.artifact_location or places.experiment(found.id),
        "lifecycle_stage": found.lifecycle_stage,
        "creation_time": found.created_ms,
        "last_update_time": found.updated_ms,
        "tags": pairs(found.tags),
    }


def run_info(run: Run, places: Places) -> dict[str, Any]:
    """MLflow's RunInfo."""
    info: dict[str, Any] = {
        "run_id": run.id,
        "run_uuid": run.id,
        "run_name": run.name,
        "experiment_id": run.experiment_id,
        "user_id": run.user_id,
        "status": run.status,
        "start_time": run.start_ms,
        "artifact_uri": run_address(run, places),
        "lifecycle_stage": run.lifecycle_stage,
    }
    if run.end_ms is not None:
        info["end_time"] = run.end_ms
    return info


def run_address(run: Run, places: Places) -> str:
    """The address of a run's artifacts."""
    if run.artifact_location:
        return f"{run.artifact_location.rstrip('/')}/{run.id}/artifacts"
    return places.run(run.experiment_id, run.id)


def run(found: Run, places: Places) -> dict[str, Any]:
    """MLflow's Run."""
    return {
        "info": run_info(found, places),
        "data": {
            "metrics": [metric(point) for point in found.metrics],
            "params": pairs(found.params),
            "tags": pairs(found.tags),
        },
        "inputs": {
            "dataset_inputs": [
                {"dataset": dataset.document, "tags": dataset.tags} for dataset in found.datasets
            ],
            "model_inputs": [{"model_id": model_id} for model_id in found.model_inputs],
        },
        "outputs": {
            "model_outputs": [{"model_id": model_id, "step": step} for model_id, step in found.model_outputs]
        },
    }


def model_address(model: LoggedModel, places: Places) -> str:
    """The address of a logged model's files."""
    if model.artifact_location:
        return f"{model.artifact_location.rstrip('/')}/models/{model.id}/artifacts"
    return places.model(model.experiment_id, model)


def logged_model(model: LoggedModel, places: Places) -> dict[str, Any]:
    """MLflow's LoggedModel."""
    return {
        "info": {
            "model_id": model.id,
            "experiment_id": model.experiment_id,
            "name": model.name,
            "creation_timestamp_ms": model.created_ms,
            "last_updated_timestamp_ms": model.updated_ms,
            "artifact_uri": model_address(model, places),
            "status": f"LOGGED_MODEL_{model.status}",
            "status_message": model.status_message,
            "creator_id": 0,
            "model_type": model.model_type,
            "source_run_id": model.source_run_id,
            "tags": pairs(model.tags),
            "registrations": [],
        },
        "data": {
            "params": pairs(model.params),
            "metrics": [
                {**metric(point), "run_id": run_id, "model_id": model.id} for run_id, point in model.metrics
            ],
        },
    }


def model_version(version: ModelVersion) -> dict[str, Any]:
    """MLflow's ModelVersion."""
    return {
        "name": version.name,
        "version": version.version,
        "creation_timestamp": version.created_ms,
        "last_updated_timestamp": version.updated_ms,
        "user_id": version.user_id,
        "current_stage": version.stage,
        "description": version.description,
        "source": version.source,
        "run_id": version.run_id,
        "run_link": version.run_link,
        "model_id": version.model_id,
        "status": "READY",
        "status_message": "",
        "tags": pairs(version.tags),
        "aliases": version.aliases,
    }


def registered_model(model: RegisteredModel) -> dict[str, Any]:
    """MLflow's RegisteredModel."""
    return {
        "name": model.name,
        "creation_timestamp": model.created_ms,
        "last_updated_timestamp": model.updated_ms,
        "user_id": "",
        "description": model.description,
        "latest_versions": [model_version(version) for version in model.latest],
        "tags": pairs(model.tags),
        "aliases": [{"alias": alias, "version": version} for alias, version in sorted(model.aliases.items())],
    }
