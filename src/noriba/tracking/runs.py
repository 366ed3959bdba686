"""Runs: their life, and what is logged to them beside metrics. Times in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.database.tracking_tables import (
    experiments,
    run_datasets,
    run_latest_metrics,
    run_models,
    run_params,
    run_tags,
    runs,
)
from noriba.tracking import metrics
from noriba.tracking.errors import invalid, unknown
from noriba.tracking.experiments import active_in
from noriba.tracking.metrics import Point
from noriba.tracking.statuses import RunStatus
from noriba.tracking.store import PARENT_TAG, RUN_NAME_TAG, put_tags_in
from noriba.tracking.upsert import add_rows, put_rows

LOGGED_MODELS_TAG = "mlflow.log-model.history"
CONTEXT_TAG = "mlflow.data.context"
_CHUNK = 5000


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset that a run read. ``document`` is MLflow's Dataset (name, digest, source_type, source, …)."""

    document: dict[str, Any]
    tags: list[dict[str, str]]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run and all that was logged to it; ``metrics`` are the latest points. ``artifact_location`` is the
    experiment's, None where the server keeps artifacts."""

    key: int
    id: str
    experiment_id: str
    name: str
    user_id: str
    status: str
    start_ms: int
    end_ms: int | None
    lifecycle_stage: str
    is_job: bool
    artifact_location: str | None
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: list[Point] = []
    datasets: list[Dataset] = []
    model_inputs: list[str] = []
    model_outputs: list[tuple[str, int]] = []


def create_in(
    connection: sa.Connection,
    workspace_id: str,
    *,
    run_id: str,
    experiment_id: str,
    name: str,
    user_id: str,
    start_ms: int,
    tags: Mapping[str, str],
) -> Run:
    """Start a run that is no job. Raises NotFound or BadRequest for its experiment."""
    active_in(connection, workspace_id, experiment_id)
    key = connection.execute(
        runs.insert()
        .values(
            workspace_id=workspace_id,
            id=run_id,
            experiment_id=experiment_id,
            name=name,
            user_id=user_id,
            status=RunStatus.RUNNING.value,
            start_ms=start_ms,
            parent_run_id=tags.get(PARENT_TAG),
            is_job=False,
        )
        .returning(runs.c.key)
    ).scalar_one()
    put_tags_in(connection, key, {RUN_NAME_TAG: name, **tags})
    return get_in(connection, workspace_id, run_id)


def row_in(connection: sa.Connection, workspace_id: str, run_id: str) -> sa.Row[Any]:
    """The bare row of a run. Raises NotFound."""
    row = connection.execute(
        sa.select(runs).where(runs.c.workspace_id == workspace_id, runs.c.id == run_id)
    ).one_or_none()
    if row is None:
        raise unknown(f"Run with id={run_id} not found")
    return row


def active_row_in(connection: sa.Connection, workspace_id: str, run_id: str) -> sa.Row[Any]:
    """The bare row of a run that is not deleted. Raises NotFound or BadRequest."""
    row = row_in(connection, workspace_id, run_id)
    if row.lifecycle_stage != "active":
        raise not_active(run_id, row.lifecycle_stage)
    return row


def not_active(run_id: str, stage: str) -> Exception:
    """The error for logging to a deleted run."""
    return invalid(f"The run {run_id} must be in the 'active' state. Current state is {stage}.")


def get_in(connection: sa.Connection, workspace_id: str, run_id: str) -> Run:
    """A run with all that was logged to it. Raises NotFound."""
    found = load(connection, select().where(runs.c.workspace_id == workspace_id, runs.c.id == run_id))
    if not found:
        raise unknown(f"Run with id={run_id} not found")
    return found[0]


def update_in(
    connection: sa.Connection,
    workspace_id: str,
    run_id: str,
    *,
    status: RunStatus | None,
    end_ms: int | None,
    name: str | None,
) -> Run:
    """Change status, end and name. A job's status is the job's to say: ``mlflow.end_run()`` inside a job ends
    nothing. Raises NotFound or BadRequest."""
    row = active_row_in(connection, workspace_id, run_id)
    values: dict[str, Any] = {}
    if not row.is_job:
        if status is not None:
            values["status"] = status.value
        if end_ms is not None:
            values["end_ms"] = end_ms
    if name:
        values["name"] = name
        put_tags_in(connection, row.key, {RUN_NAME_TAG: name})
    if values:
        connection.execute(runs.update().where(runs.c.key == row.key).values(**values))
    return get_in(connection, workspace_id, run_id)


def set_lifecycle_in(connection: sa.Connection, workspace_id: str, run_id: str, stage: str) -> None:
    """Delete (``deleted``) or restore (``active``) a run. Raises NotFound."""
    row = row_in(connection, workspace_id, run_id)
    connection.execute(runs.update().where(runs.c.key == row.key).values(lifecycle_stage=stage))


def add_params_in(
    connection: sa.Connection, run_key: int, run_id: str, params: Sequence[tuple[str, str]]
) -> None:
    """Log params. A param never changes: raises BadRequest when one has another value already."""
    if not params:
        return
    add_rows(
        connection,
        run_params,
        [{"run_key": run_key, "key": key, "value": value} for key, value in params],
    )
    held = {
        row.key: row.value
        for row in connection.execute(
            sa.select(run_params.c.key, run_params.c.value).where(
                run_params.c.run_key == run_key, run_params.c.key.in_([key for key, _ in params])
            )
        )
    }
    for key, value in params:
        if held[key] != value:
            raise invalid(
                f"Changing param values is not allowed. Param with key='{key}' was already logged with "
                f"value='{held[key]}' for run ID='{run_id}'. Attempted logging new value '{value}'. "
                "Log it under another name, or in a nested run."
            )


def set_tags_in(connection: sa.Connection, run_key: int, tags: Sequence[tuple[str, str]]) -> None:
    """Set tags; the last of several values for one key counts. Some tags stand for fields of the run."""
    values = dict(tags)
    put_tags_in(connection, run_key, values)
    fields: dict[str, Any] = {}
    if values.get(RUN_NAME_TAG):
        fields["name"] = values[RUN_NAME_TAG]
    if PARENT_TAG in values:
        fields["parent_run_id"] = values[PARENT_TAG]
    if fields:
        connection.execute(runs.update().where(runs.c.key == run_key).values(**fields))


def delete_tag_in(connection: sa.Connection, workspace_id: str, run_id: str, key: str) -> None:
    """Remove a tag. Raises NotFound."""
    row = active_row_in(connection, workspace_id, run_id)
    removed = connection.execute(
        run_tags.delete().where(run_tags.c.run_key == row.key, run_tags.c.key == key)
    )
    if not removed.rowcount:
        raise unknown(f"No tag with name: {key} in run with id {run_id}")


def add_logged_model_in(
    connection: sa.Connection, workspace_id: str, run_id: str, model: dict[str, Any]
) -> None:
    """Note a model in the run's ``mlflow.log-model.history`` tag (clients of MLflow 2)."""
    row = active_row_in(connection, workspace_id, run_id)
    held = connection.execute(
        sa.select(run_tags.c.value).where(run_tags.c.run_key == row.key, run_tags.c.key == LOGGED_MODELS_TAG)
    ).scalar_one_or_none()
    history = [*(msgspec.json.decode(held) if held else []), model]
    put_tags_in(connection, row.key, {LOGGED_MODELS_TAG: msgspec.json.encode(history).decode()})


def add_datasets_in(connection: sa.Connection, run_key: int, datasets: Sequence[Dataset]) -> None:
    """Note datasets that the run read; the same (name, digest) again changes nothing."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for dataset in datasets:
        name, digest = str(dataset.document["name"]), str(dataset.document["digest"])
        context = next((tag["value"] for tag in dataset.tags if tag["key"] == CONTEXT_TAG), "")
        rows.setdefault(
            (name, digest),
            {
                "run_key": run_key,
                "name": name,
                "digest": digest,
                "document": dataset.document,
                "tags": dataset.tags,
                "context": context,
            },
        )
    add_rows(connection, run_datasets, list(rows.values()))


def add_models_in(
    connection: sa.Connection, run_key: int, direction: str, models: Sequence[tuple[str, int]]
) -> None:
    """Note (model id, step) of logged models that the run read (``input``) or made (``output``)."""
    put_rows(
        connection,
        run_models,
        [
            {"run_key": run_key, "direction": direction, "model_id": model_id, "step": step}
            for model_id, step in dict(models).items()
        ],
        ["step"],
    )


def datasets_of_experiments_in(
    connection: sa.Connection, workspace_id: str, experiment_ids: Sequence[str], limit: int = 1000
) -> list[sa.Row[Any]]:
    """Which (experiment_id, name, digest, context) of datasets the runs of experiments read."""
    statement = (
        sa.select(runs.c.experiment_id, run_datasets.c.name, run_datasets.c.digest, run_datasets.c.context)
        .distinct()
        .join(runs, runs.c.key == run_datasets.c.run_key)
        .where(
            runs.c.workspace_id == workspace_id,
            runs.c.experiment_id.in_(list(experiment_ids)),
            runs.c.lifecycle_stage == "active",
        )
        .limit(limit)
    )
    return list(connection.execute(statement))


def select() -> sa.Select[Any]:
    """Runs with their experiment's artifact location, to add conditions to."""
    return sa.select(runs, experiments.c.artifact_location).join(
        experiments,
        (experiments.c.workspace_id == runs.c.workspace_id) & (experiments.c.id == runs.c.experiment_id),
    )


def load(connection: sa.Connection, statement: sa.Select[Any]) -> list[Run]:
    """The runs of a ``select()`` with all that was logged to them, in its order."""
    rows = connection.execute(statement).all()
    found: list[Run] = []
    for start in range(0, len(rows), _CHUNK):
        found += _complete(connection, rows[start : start + _CHUNK])
    return found


def _complete(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[Run]:
    by_key = {
        row.key: Run(
            key=row.key,
            id=row.id,
            experiment_id=row.experiment_id,
            name=row.name,
            user_id=row.user_id,
            status=row.status,
            start_ms=row.start_ms,
            end_ms=row.end_ms,
            lifecycle_stage=row.lifecycle_stage,
            is_job=row.is_job,
            artifact_location=row.artifact_location,
            params={},
            tags={},
            metrics=[],
            datasets=[],
            model_inputs=[],
            model_outputs=[],
        )
        for row in rows
    }
    keys = list(by_key)

    def logged(table: sa.Table, *order: sa.ColumnElement[Any]) -> Iterable[Any]:
        return connection.execute(sa.select(table).where(table.c.run_key.in_(keys)).order_by(*order))

    # Rows are unpacked by position: there may be very many.
    for key, name, value in logged(run_params, run_params.c.key):
        by_key[key].params[name] = value
    for key, name, value in logged(run_tags, run_tags.c.key):
        by_key[key].tags[name] = value
    for key, *point in logged(run_latest_metrics, run_latest_metrics.c.key):
        by_key[key].metrics.append(metrics.of_columns(*point))
    for row in logged(run_datasets, run_datasets.c.name, run_datasets.c.digest):
        by_key[row.run_key].datasets.append(Dataset(document=row.document, tags=row.tags))
    for row in logged(run_models, run_models.c.step, run_models.c.model_id):
        run = by_key[row.run_key]
        if row.direction == "input":
            run.model_inputs.append(row.model_id)
        else:
            run.model_outputs.append((row.model_id, row.step))
    return [by_key[row.key] for row in rows]
