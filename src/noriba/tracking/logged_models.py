"""Logged models of MLflow 3: models that were logged but not (yet) registered. Times in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.database.tracking_tables import (
    experiments,
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
)
from noriba.tracking.errors import invalid, unknown
from noriba.tracking.experiments import active_in
from noriba.tracking.metrics import Point
from noriba.tracking.upsert import add_rows, put_rows

STATUSES = {0: "UNSPECIFIED", 1: "PENDING", 2: "READY", 3: "UPLOAD_FAILED"}
"""MLflow's numbers for the states of a logged model."""


class LoggedModel(msgspec.Struct, frozen=True, kw_only=True):
    """``folder`` is where its files stand: in the artifacts of its source run under its name where that was free,
    else in a place of its own. ``metrics`` are (run id, point)."""

    key: int
    id: str
    experiment_id: str
    name: str
    model_type: str
    source_run_id: str
    folder: str
    status: str
    status_message: str
    lifecycle_stage: str
    created_ms: int
    updated_ms: int
    artifact_location: str | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[tuple[str, Point]]


def create_in(
    connection: sa.Connection,
    workspace_id: str,
    *,
    model_id: str,
    experiment_id: str,
    name: str,
    model_type: str,
    source_run_id: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    now_ms: int,
) -> LoggedModel:
    """Make a logged model, PENDING. Raises NotFound or BadRequest for its experiment."""
    active_in(connection, workspace_id, experiment_id)
    key = connection.execute(
        logged_models.insert()
        .values(
            workspace_id=workspace_id,
            id=model_id,
            experiment_id=experiment_id,
            name=name,
            model_type=model_type,
            source_run_id=source_run_id,
            folder=_free_folder(connection, workspace_id, source_run_id, name, model_id),
            status=STATUSES[1],
            created_ms=now_ms,
            updated_ms=now_ms,
        )
        .returning(logged_models.c.key)
    ).scalar_one()
    add_params_in(connection, key, params)
    _put_tags(connection, key, tags)
    return get_in(connection, workspace_id, model_id)


def _free_folder(connection: sa.Connection, workspace_id: str, run_id: str, name: str, model_id: str) -> str:
    """The name itself for the first model of that name in a run: there a job's artifacts hold it, as clients of
    MLflow 2 and Azure ML expect. Further ones get a folder that no other has."""
    if not run_id:
        return "model"
    taken = connection.execute(
        sa.select(sa.func.count())
        .select_from(logged_models)
        .where(
            logged_models.c.workspace_id == workspace_id,
            logged_models.c.source_run_id == run_id,
            logged_models.c.folder == name,
        )
    ).scalar_one()
    return f"models/{model_id}" if taken else name


def get_in(
    connection: sa.Connection, workspace_id: str, model_id: str, *, allow_deleted: bool = False
) -> LoggedModel:
    """The logged model with that id. Raises NotFound."""
    statement = select().where(logged_models.c.workspace_id == workspace_id, logged_models.c.id == model_id)
    if not allow_deleted:
        statement = statement.where(logged_models.c.lifecycle_stage == "active")
    found = load(connection, statement)
    if not found:
        raise unknown(f"Logged model with ID '{model_id}' not found.")
    return found[0]


def finalize_in(
    connection: sa.Connection, workspace_id: str, model_id: str, status: str, now_ms: int
) -> LoggedModel:
    """Say how the upload of a model's files ended. Raises NotFound."""
    model = get_in(connection, workspace_id, model_id)
    connection.execute(
        logged_models.update()
        .where(logged_models.c.key == model.key)
        .values(status=status, updated_ms=now_ms)
    )
    return get_in(connection, workspace_id, model_id)


def delete_in(connection: sa.Connection, workspace_id: str, model_id: str, now_ms: int) -> None:
    """Mark a logged model deleted. Raises NotFound."""
    model = get_in(connection, workspace_id, model_id)
    connection.execute(
        logged_models.update()
        .where(logged_models.c.key == model.key)
        .values(lifecycle_stage="deleted", updated_ms=now_ms)
    )


def set_tags_in(
    connection: sa.Connection, workspace_id: str, model_id: str, tags: Mapping[str, str]
) -> LoggedModel:
    """Set tags. Raises NotFound."""
    _put_tags(connection, get_in(connection, workspace_id, model_id).key, tags)
    return get_in(connection, workspace_id, model_id)


def delete_tag_in(connection: sa.Connection, workspace_id: str, model_id: str, key: str) -> None:
    """Remove a tag. Raises NotFound."""
    model = get_in(connection, workspace_id, model_id)
    removed = connection.execute(
        logged_model_tags.delete().where(
            logged_model_tags.c.model_key == model.key, logged_model_tags.c.key == key
        )
    )
    if not removed.rowcount:
        raise unknown(f"No tag with key '{key}' found for model with ID '{model_id}'.")


def log_params_in(
    connection: sa.Connection, workspace_id: str, model_id: str, params: Mapping[str, str]
) -> None:
    """Add params. Raises NotFound, and BadRequest when one has another value already."""
    add_params_in(connection, get_in(connection, workspace_id, model_id).key, params)


def add_params_in(connection: sa.Connection, key: int, params: Mapping[str, str]) -> None:
    """Add params to the model with that key. Raises BadRequest when one has another value already."""
    if not params:
        return
    add_rows(
        connection,
        logged_model_params,
        [{"model_key": key, "key": name, "value": value} for name, value in params.items()],
    )
    held = connection.execute(
        sa.select(logged_model_params.c.key, logged_model_params.c.value).where(
            logged_model_params.c.model_key == key, logged_model_params.c.key.in_(list(params))
        )
    )
    for row in held:
        if params[row.key] != row.value:
            raise invalid(f"Param '{row.key}' of the logged model has the value '{row.value}' already.")


def add_metrics_in(
    connection: sa.Connection, workspace_id: str, run_id: str, points: Sequence[Point]
) -> None:
    """Keep points that a run logged about models with those models. Raises NotFound for an unknown model."""
    ids = {point.model_id for point in points if point.model_id}
    if not ids:
        return
    keys = {
        row.id: row.key
        for row in connection.execute(
            sa.select(logged_models.c.id, logged_models.c.key).where(
                logged_models.c.workspace_id == workspace_id, logged_models.c.id.in_(ids)
            )
        )
    }
    lost = sorted(ids - keys.keys())
    if lost:
        raise unknown(f"Logged model with ID '{lost[0]}' not found.")
    add_rows(
        connection,
        logged_model_metrics,
        [
            {
                "model_key": keys[point.model_id],
                "key": point.key,
                "timestamp_ms": point.timestamp_ms,
                "step": point.step,
                "run_id": run_id,
                "value": 0.0 if math.isnan(point.value) else point.value,
                "is_nan": math.isnan(point.value),
                "dataset_name": point.dataset_name,
                "dataset_digest": point.dataset_digest,
            }
            for point in points
            if point.model_id
        ],
    )


def select() -> sa.Select[Any]:
    """Logged models with their experiment's artifact location, to add conditions to."""
    return sa.select(logged_models, experiments.c.artifact_location).join(
        experiments,
        (experiments.c.workspace_id == logged_models.c.workspace_id)
        & (experiments.c.id == logged_models.c.experiment_id),
    )


def load(connection: sa.Connection, statement: sa.Select[Any]) -> list[LoggedModel]:
    """The logged models of a ``select()`` with what was logged to them, in its order."""
    rows = connection.execute(statement).all()
    models = {
        row.key: LoggedModel(
            key=row.key,
            id=row.id,
            experiment_id=row.experiment_id,
            name=row.name,
            model_type=row.model_type,
            source_run_id=row.source_run_id,
            folder=row.folder,
            status=row.status,
            status_message=row.status_message,
            lifecycle_stage=row.lifecycle_stage,
            created_ms=row.created_ms,
            updated_ms=row.updated_ms,
            artifact_location=row.artifact_location,
            params={},
            tags={},
            metrics=[],
        )
        for row in rows
    }

    def of_models(table: sa.Table, *order: sa.ColumnElement[Any]) -> sa.CursorResult[Any]:
        return connection.execute(
            sa.select(table).where(table.c.model_key.in_(list(models))).order_by(*order)
        )

    if models:
        for row in of_models(logged_model_params, logged_model_params.c.key):
            models[row.model_key].params[row.key] = row.value
        for row in of_models(logged_model_tags, logged_model_tags.c.key):
            models[row.model_key].tags[row.key] = row.value
        columns = logged_model_metrics.c
        for row in of_models(logged_model_metrics, columns.key, columns.timestamp_ms, columns.step):
            point = Point(
                row.key,
                math.nan if row.is_nan else row.value,
                row.timestamp_ms,
                row.step,
                models[row.model_key].id,
                row.dataset_name,
                row.dataset_digest,
            )
            models[row.model_key].metrics.append((row.run_id, point))
    return [models[row.key] for row in rows]


def _put_tags(connection: sa.Connection, key: int, tags: Mapping[str, str]) -> None:
    put_rows(
        connection,
        logged_model_tags,
        [{"model_key": key, "key": name, "value": value} for name, value in tags.items()],
        ["value"],
    )
