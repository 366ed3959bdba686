"""Jobs in the database. Functions ending in ``_in`` run inside a write and take its connection."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from noriba.database.tables import job_events, job_samples, jobs, tasks
from noriba.models.errors import BadRequest, Conflict, NotFound
from noriba.models.job import ON_NODE, TERMINAL, JobStatus, check_move
from noriba.tracking import store as tracking

JobRow = sa.Row[Any]

MLFLOW_STATUS = {
    JobStatus.RUNNING: "RUNNING",
    JobStatus.COMPLETED: "FINISHED",
    JobStatus.FAILED: "FAILED",
    JobStatus.CANCELED: "KILLED",
}
"""What a job's status is to MLflow, where it says something new about the run."""

COMPUTED_PROPERTIES = frozenset(
    {"noriba.instance_type", "noriba.instance_count", "noriba.tier", "noriba.attempt", "noriba.reason"}
)
"""Entries of ``properties.properties`` that we make; clients that send them back do not set them."""


def computed_properties(row: JobRow) -> dict[str, str]:
    """What we tell about a job in ``properties.properties``, where every client shows it."""
    told = {
        "noriba.instance_type": row.size,
        "noriba.instance_count": str(row.instance_count),
        "noriba.tier": row.tier,
        "noriba.attempt": str(row.attempt),
    }
    if row.reason:
        told["noriba.reason"] = row.reason["message"]
    return told


def load_in(connection: sa.Connection, workspace_id: str, name: str) -> JobRow:
    """The job's row. Raises NotFound."""
    row = find_in(connection, workspace_id, name)
    if row is None:
        raise NotFound(
            f"There is no job '{name}' in this workspace. See the existing ones with: noriba job list",
            target="job",
        )
    return row


def find_in(connection: sa.Connection, workspace_id: str, name: str) -> JobRow | None:
    """The job's row, or None."""
    return connection.execute(
        sa.select(jobs).where(jobs.c.workspace_id == workspace_id, jobs.c.name == name)
    ).one_or_none()


def move_in(
    connection: sa.Connection,
    row: JobRow,
    status: JobStatus,
    *,
    now: float,
    code: str | None = None,
    message: str | None = None,
    who: str = "noriba",
    **values: Any,
) -> None:
    """Move a job to a status and write its timeline row; ``values`` are further columns to set.

    Raises IllegalTransition. Terminal statuses close the MLflow run and set ``ended_at``.
    """
    check_move(JobStatus(row.status), status)
    changes: dict[str, Any] = {"status": status.value, "status_at": now, "modified_at": now, **values}
    if status in ON_NODE or status in TERMINAL:
        changes.setdefault("reason", None)
    if status is JobStatus.RUNNING and row.started_at is None:
        changes["started_at"] = now
    if status in TERMINAL:
        changes["ended_at"] = now
    connection.execute(jobs.update().where(jobs.c.sequence == row.sequence).values(**changes))
    add_event_in(
        connection,
        row.workspace_id,
        row.name,
        at=now,
        kind="status",
        status=status.value,
        attempt=changes.get("attempt", row.attempt),
        code=code,
        message=message,
        who=who,
    )
    if status in MLFLOW_STATUS:
        tracking.set_run_status_in(
            connection, row.workspace_id, row.name, MLFLOW_STATUS[status], now if status in TERMINAL else None
        )


def add_event_in(
    connection: sa.Connection,
    workspace_id: str,
    job: str,
    *,
    at: float,
    kind: str,
    status: str | None = None,
    attempt: int = 0,
    code: str | None = None,
    message: str | None = None,
    who: str = "noriba",
) -> None:
    """Add a row to a job's timeline."""
    connection.execute(
        job_events.insert().values(
            workspace_id=workspace_id,
            job=job,
            at=at,
            kind=kind,
            status=status,
            attempt=attempt,
            code=code,
            message=message,
            who=who,
        )
    )


def events_in(connection: sa.Connection, workspace_id: str, job: str) -> list[sa.Row[Any]]:
    """A job's timeline, oldest first."""
    return list(
        connection.execute(
            sa.select(job_events)
            .where(job_events.c.workspace_id == workspace_id, job_events.c.job == job)
            .order_by(job_events.c.sequence)
        )
    )


def add_warning_in(connection: sa.Connection, row: JobRow, *, at: float, code: str, message: str) -> None:
    """Add a warning that clients show on the job; the same one is added once."""
    warnings = list(row.warnings or [])
    if any(known["code"] == code and known["message"] == message for known in warnings):
        return
    warnings.append({"code": code, "message": message})
    connection.execute(jobs.update().where(jobs.c.sequence == row.sequence).values(warnings=warnings))
    add_event_in(
        connection,
        row.workspace_id,
        row.name,
        at=at,
        kind="warning",
        attempt=row.attempt,
        code=code,
        message=message,
    )


def tasks_in(connection: sa.Connection, row: JobRow) -> list[sa.Row[Any]]:
    """The tasks of the job's current attempt, by rank."""
    return list(
        connection.execute(
            sa.select(tasks)
            .where(
                tasks.c.workspace_id == row.workspace_id,
                tasks.c.job == row.name,
                tasks.c.attempt == row.attempt,
            )
            .order_by(tasks.c.rank)
        )
    )


def list_in(
    connection: sa.Connection,
    workspace_id: str,
    *,
    view: str = "ActiveOnly",
    kind: str | None = None,
    tag: str | None = None,
    experiment: str | None = None,
    parent: str | None = None,
    before: int | None = None,
    limit: int,
) -> list[JobRow]:
    """Jobs, newest first. ``parent`` None lists top-level jobs; ``before`` is the sequence to go on below.

    ``tag`` is ``name`` or ``name=value``. Raises BadRequest for an unknown view.
    """
    query = sa.select(jobs).where(jobs.c.workspace_id == workspace_id).order_by(jobs.c.sequence.desc())
    if view not in ("ActiveOnly", "ArchivedOnly", "All"):
        raise BadRequest(
            f"listViewType must be ActiveOnly, ArchivedOnly or All, not '{view}'.", target="listViewType"
        )
    if view != "All":
        query = query.where(jobs.c.is_archived.is_(view == "ArchivedOnly"))
    if kind:
        query = query.where(sa.func.lower(jobs.c.kind) == kind.lower())
    if experiment:
        query = query.where(jobs.c.experiment == experiment)
    query = (
        query.where(jobs.c.parent == parent) if parent is not None else query.where(jobs.c.parent.is_(None))
    )
    if not tag:
        page = query.where(jobs.c.sequence < before) if before else query
        return list(connection.execute(page.limit(limit)))
    return _with_tag(connection, query, tag, before, limit)


def _with_tag(
    connection: sa.Connection, query: sa.Select[Any], tag: str, before: int | None, limit: int
) -> list[JobRow]:
    """Tags are JSON: look through pages of jobs until enough have the tag."""
    name, has_value, value = tag.partition("=")
    found: list[JobRow] = []
    while len(found) < limit:
        page = list(
            connection.execute((query.where(jobs.c.sequence < before) if before else query).limit(500))
        )
        for row in page:
            if name in row.tags and (not has_value or row.tags[name] == value):
                found.append(row)
        if len(page) < 500:
            break
        before = page[-1].sequence
    return found[:limit]


def update_metadata_in(
    connection: sa.Connection, row: JobRow, changes: dict[str, Any], *, now: float, who: str
) -> None:
    """Change what may change on any job: ``display_name``, ``description``, ``tags``, ``properties`` (both merged),
    ``is_archived``."""
    values: dict[str, Any] = {"modified_at": now}
    for name in ("display_name", "description", "is_archived"):
        if changes.get(name) is not None:
            values[name] = changes[name]
    for name in ("tags", "properties"):
        if changes.get(name):
            merged = {**getattr(row, name), **changes[name]}
            values[name] = {key: value for key, value in merged.items() if value is not None}
    connection.execute(jobs.update().where(jobs.c.sequence == row.sequence).values(**values))
    if "is_archived" in values and values["is_archived"] != row.is_archived:
        add_event_in(
            connection,
            row.workspace_id,
            row.name,
            at=now,
            kind="archived" if values["is_archived"] else "restored",
            who=who,
        )


def samples_in(connection: sa.Connection, workspace_id: str, job: str) -> list[sa.Row[Any]]:
    """A job's utilisation samples, oldest first."""
    return list(
        connection.execute(
            sa.select(job_samples)
            .where(job_samples.c.workspace_id == workspace_id, job_samples.c.job == job)
            .order_by(job_samples.c.sequence)
        )
    )


def delete_in(connection: sa.Connection, row: JobRow) -> None:
    """Delete a job with its history and its run. Raises Conflict while it is not over."""
    check_deletable(row)
    for table in (job_events, job_samples, tasks):
        connection.execute(
            table.delete().where(table.c.workspace_id == row.workspace_id, table.c.job == row.name)
        )
    connection.execute(jobs.delete().where(jobs.c.sequence == row.sequence))
    tracking.delete_run_in(connection, row.workspace_id, row.name)


def check_deletable(row: JobRow) -> None:
    """Raise Conflict while the job is not over."""
    if JobStatus(row.status) not in TERMINAL:
        raise Conflict(
            f"Job '{row.name}' is {row.status}. Cancel it first, then delete it.",
            code="JobNotTerminal",
            target="job",
        )
