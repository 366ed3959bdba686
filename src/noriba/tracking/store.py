"""What the rest of the server needs from tracking: a job *is* a run, and its tags, params and metrics are the run's.

All functions take a connection and run inside the caller's transaction. Times are UTC seconds, as in the jobs table.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.database.tracking_tables import (
    experiments,
    run_datasets,
    run_latest_metrics,
    run_metrics,
    run_models,
    run_params,
    run_tags,
    runs,
)
from noriba.models.errors import Conflict
from noriba.models.job import JobStatus
from noriba.tracking.statuses import OVER, job_status, run_status
from noriba.tracking.upsert import insert, put_rows

SYSTEM_TAG_PREFIX = "mlflow."
"""Tags that MLflow keeps for itself; they are not shown as tags of a job."""
PARENT_TAG = "mlflow.parentRunId"
RUN_NAME_TAG = "mlflow.runName"
USER_TAG = "mlflow.user"

DEFAULT_EXPERIMENT_ID = "0"
"""The id that clients use when no experiment was set; its name is ``Default``."""
_EXPERIMENT_IDS = uuid.UUID("6d4b0b4e-6f0f-4f4a-9a56-6a7f0c0e0b1d")


class RunDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One run with what was logged to it. ``metrics`` has the latest value of each metric (NaN and infinities are
    floats), ``job_status`` the status as a job's. Times in UTC seconds."""

    id: str
    experiment_id: str
    experiment_name: str
    name: str
    user_id: str
    status: str
    job_status: JobStatus
    start_time: float
    end_time: float | None
    is_active: bool
    is_job: bool
    parent_run_id: str | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]

    @property
    def user_tags(self) -> dict[str, str]:
        """The tags without MLflow's own."""
        return without_system_tags(self.tags)


def without_system_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that a user set."""
    return {key: value for key, value in tags.items() if not key.startswith(SYSTEM_TAG_PREFIX)}


def create_run_in(
    connection: sa.Connection,
    *,
    workspace_id: str,
    run_id: str,
    experiment_name: str,
    run_name: str,
    user_id: str,
    start_time: float,
    tags: Mapping[str, str],
    parent_run_id: str | None = None,
) -> str:
    """Make the run of a job that is being submitted, and its experiment when missing; returns the experiment's id.

    The run starts as SCHEDULED. Raises Conflict when there is a run with that id.
    """
    now_ms = round(start_time * 1000)
    experiment_id = ensure_experiment_in(connection, workspace_id, experiment_name, now_ms)
    found = connection.execute(
        insert(connection, runs)
        .values(
            workspace_id=workspace_id,
            id=run_id,
            experiment_id=experiment_id,
            name=run_name,
            user_id=user_id,
            status=run_status(JobStatus.NOT_STARTED).value,
            start_ms=now_ms,
            parent_run_id=parent_run_id,
            is_job=True,
        )
        .on_conflict_do_nothing()
        .returning(runs.c.key)
    ).scalar_one_or_none()
    if found is None:
        raise Conflict(f"There is a run '{run_id}' already. Choose another name for the job.", target="name")
    all_tags = {
        **{key: value for key, value in tags.items() if value is not None},
        RUN_NAME_TAG: run_name,
        USER_TAG: user_id,
        "mlflow.source.type": "JOB",
    }
    if parent_run_id:
        all_tags[PARENT_TAG] = parent_run_id
    put_tags_in(connection, found, all_tags)
    return experiment_id


def ensure_experiment_in(connection: sa.Connection, workspace_id: str, name: str, now_ms: int) -> str:
    """The id of the active experiment with that name, which is made (or brought back) when missing."""
    row = connection.execute(
        sa.select(experiments.c.id, experiments.c.lifecycle_stage).where(
            experiments.c.workspace_id == workspace_id, experiments.c.name == name
        )
    ).one_or_none()
    if row is not None:
        if row.lifecycle_stage != "active":
            connection.execute(
                experiments.update()
                .where(experiments.c.workspace_id == workspace_id, experiments.c.id == row.id)
                .values(lifecycle_stage="active", updated_ms=now_ms)
            )
        return str(row.id)
    return insert_experiment_in(connection, workspace_id, name, now_ms)


def insert_experiment_in(
    connection: sa.Connection, workspace_id: str, name: str, now_ms: int, artifact_location: str | None = None
) -> str:
    """Add an experiment whose name is free; returns its id.

    The id follows from workspace and name, since a write may run twice; renamed ones make way for a next number.
    """
    attempt = 0
    while True:
        if name == "Default" and attempt == 0:
            experiment_id = DEFAULT_EXPERIMENT_ID
        else:
            experiment_id = str(uuid.uuid5(_EXPERIMENT_IDS, f"{workspace_id}/{name}/{attempt}"))
        added = connection.execute(
            insert(connection, experiments)
            .values(
                workspace_id=workspace_id,
                id=experiment_id,
                name=name,
                artifact_location=artifact_location,
                lifecycle_stage="active",
                created_ms=now_ms,
                updated_ms=now_ms,
            )
            .on_conflict_do_nothing(index_elements=["workspace_id", "id"])
            .returning(experiments.c.id)
        ).scalar_one_or_none()
        if added is not None:
            return experiment_id
        attempt += 1


def set_run_status_in(
    connection: sa.Connection, workspace_id: str, run_id: str, status: str, end_time: float | None
) -> None:
    """Set the status of a job's run: a job's status (``Preparing``) or a run's (``RUNNING``).

    When the job is over, runs nested in it that nobody ended are over with the same status. An unknown run is left
    alone.
    """
    value = run_status(status)
    end_ms = None if end_time is None or value not in OVER else round(end_time * 1000)
    connection.execute(
        runs.update()
        .where(runs.c.workspace_id == workspace_id, runs.c.id == run_id)
        .values(status=value.value, end_ms=end_ms)
    )
    if value in OVER:
        connection.execute(
            runs.update()
            .where(
                runs.c.workspace_id == workspace_id,
                runs.c.parent_run_id == run_id,
                runs.c.is_job.is_(False),
                runs.c.status == "RUNNING",
            )
            .values(status=value.value, end_ms=end_ms)
        )


def set_run_tags_in(
    connection: sa.Connection, workspace_id: str, run_id: str, tags: Mapping[str, str | None]
) -> None:
    """Set tags of a run (None removes one), as when a job's tags are updated through its own API."""
    key = run_key(connection, workspace_id, run_id)
    if key is None:
        return
    removed = [name for name, value in tags.items() if value is None]
    if removed:
        connection.execute(run_tags.delete().where(run_tags.c.run_key == key, run_tags.c.key.in_(removed)))
    put_tags_in(connection, key, {name: value for name, value in tags.items() if value is not None})


def delete_run_in(connection: sa.Connection, workspace_id: str, run_id: str) -> None:
    """Remove a run for good with all that was logged to it, as when its job is deleted."""
    key = run_key(connection, workspace_id, run_id)
    if key is None:
        return
    for table in (run_params, run_tags, run_metrics, run_latest_metrics, run_datasets, run_models):
        connection.execute(table.delete().where(table.c.run_key == key))
    connection.execute(runs.delete().where(runs.c.key == key))


def set_run_name_in(connection: sa.Connection, workspace_id: str, run_id: str, name: str) -> None:
    """Rename a run, as when a job's display name is updated."""
    connection.execute(
        runs.update().where(runs.c.workspace_id == workspace_id, runs.c.id == run_id).values(name=name)
    )
    set_run_tags_in(connection, workspace_id, run_id, {RUN_NAME_TAG: name})


def run_key(connection: sa.Connection, workspace_id: str, run_id: str) -> int | None:
    """The key under which the rows of a run are kept."""
    return connection.execute(
        sa.select(runs.c.key).where(runs.c.workspace_id == workspace_id, runs.c.id == run_id)
    ).scalar_one_or_none()


def read_run_tags(connection: sa.Connection, workspace_id: str, run_id: str) -> dict[str, str]:
    """The tags that users set on a run (none of MLflow's own); empty for an unknown run."""
    rows = connection.execute(
        sa.select(run_tags.c.key, run_tags.c.value)
        .join(runs, runs.c.key == run_tags.c.run_key)
        .where(runs.c.workspace_id == workspace_id, runs.c.id == run_id)
    )
    return without_system_tags({row.key: row.value for row in rows})


def run_document(connection: sa.Connection, workspace_id: str, run_id: str) -> RunDocument | None:
    """The run with that id, deleted ones too; None when there is none."""
    found = _documents(
        connection, _select_runs().where(runs.c.workspace_id == workspace_id, runs.c.id == run_id)
    )
    return found[0] if found else None


def run_documents(connection: sa.Connection, workspace_id: str, ids: Sequence[str]) -> dict[str, RunDocument]:
    """Several runs by id, in three queries whatever their number. Unknown ids are left out."""
    statement = _select_runs().where(runs.c.workspace_id == workspace_id, runs.c.id.in_(list(ids)))
    return {document.id: document for document in _documents(connection, statement)}


def runs_without_job(
    connection: sa.Connection,
    workspace_id: str,
    *,
    parent_run_id: str | None = None,
    include_deleted: bool = False,
    before_key: int | None = None,
    limit: int = 100,
) -> tuple[list[RunDocument], int | None]:
    """Runs that were made by a client and not by a job, the newest first, and what to pass as ``before_key`` for the
    next page (None: there is none)."""
    statement = _select_runs().where(runs.c.workspace_id == workspace_id, runs.c.is_job.is_(False))
    if parent_run_id is not None:
        statement = statement.where(runs.c.parent_run_id == parent_run_id)
    if not include_deleted:
        statement = statement.where(runs.c.lifecycle_stage == "active")
    if before_key is not None:
        statement = statement.where(runs.c.key < before_key)
    statement = statement.order_by(runs.c.key.desc()).limit(limit)
    rows = connection.execute(statement).all()
    next_key = rows[-1].key if len(rows) == limit else None
    return _of_rows(connection, rows), next_key


def put_tags_in(connection: sa.Connection, key: int, tags: Mapping[str, str]) -> None:
    """Set tags of the run with that key."""
    put_rows(
        connection,
        run_tags,
        [{"run_key": key, "key": name, "value": str(value)} for name, value in tags.items()],
        ["value"],
    )


def _select_runs() -> sa.Select[Any]:
    return sa.select(runs, experiments.c.name.label("experiment_name")).join(
        experiments,
        (experiments.c.workspace_id == runs.c.workspace_id) & (experiments.c.id == runs.c.experiment_id),
    )


def _documents(connection: sa.Connection, statement: sa.Select[Any]) -> list[RunDocument]:
    return _of_rows(connection, connection.execute(statement).all())


def _of_rows(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[RunDocument]:
    if not rows:
        return []
    keys = [row.key for row in rows]
    params = _pairs(connection, run_params, keys)
    tags = _pairs(connection, run_tags, keys)
    metrics: dict[int, dict[str, float]] = {}
    for row in connection.execute(
        sa.select(run_latest_metrics).where(run_latest_metrics.c.run_key.in_(keys))
    ):
        metrics.setdefault(row.run_key, {})[row.key] = float("nan") if row.is_nan else row.value
    return [
        RunDocument(
            id=row.id,
            experiment_id=row.experiment_id,
            experiment_name=row.experiment_name,
            name=row.name,
            user_id=row.user_id,
            status=row.status,
            job_status=job_status(row.status),
            start_time=row.start_ms / 1000,
            end_time=None if row.end_ms is None else row.end_ms / 1000,
            is_active=row.lifecycle_stage == "active",
            is_job=row.is_job,
            parent_run_id=row.parent_run_id,
            params=params.get(row.key, {}),
            tags=tags.get(row.key, {}),
            metrics=metrics.get(row.key, {}),
        )
        for row in rows
    ]


def _pairs(connection: sa.Connection, table: sa.Table, keys: list[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for row in connection.execute(sa.select(table).where(table.c.run_key.in_(keys)).order_by(table.c.key)):
        found.setdefault(row.run_key, {})[row.key] = row.value
    return found
