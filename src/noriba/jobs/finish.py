"""How a job ends: from its tasks' ends to its own."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from noriba.database.tables import nodes, tasks
from noriba.jobs.outputs import register_outputs_in
from noriba.jobs.store import JobRow, find_in, move_in, tasks_in
from noriba.models.job import ON_NODE, TERMINAL, JobStatus

MAX_ATTEMPTS = 3
"""How often a job is tried when it is not its own fault that it did not end."""


def change_task_in(connection: sa.Connection, task: Any, values: dict[str, Any]) -> str:
    """Change a task so that its agent hears of it; returns the node's id."""
    connection.execute(nodes.update().where(nodes.c.id == task.node_id).values(revision=nodes.c.revision + 1))
    revision = connection.execute(sa.select(nodes.c.revision).where(nodes.c.id == task.node_id)).scalar_one()
    connection.execute(tasks.update().where(tasks.c.id == task.id).values(revision=revision, **values))
    return str(task.node_id)


def stop_tasks_in(connection: sa.Connection, row: JobRow, *, reason: str) -> list[str]:
    """Ask all tasks of the job's attempt that are not over to stop; returns the nodes to tell."""
    return [
        change_task_in(connection, task, {"desired": "stop", "stop_reason": reason})
        for task in tasks_in(connection, row)
        if task.ended_at is None and task.desired != "stop"
    ]


def settle_in(connection: sa.Connection, row: JobRow, now: float) -> JobStatus | None:
    """End the job, or send it back to the queue, if all tasks of its attempt are over.

    Returns its status if it is over now.
    """
    attempt_tasks = tasks_in(connection, row)
    if any(task.ended_at is None for task in attempt_tasks) or JobStatus(row.status) in TERMINAL:
        return None
    exits = [task.exit for task in attempt_tasks]
    canceled = row.status == JobStatus.CANCEL_REQUESTED.value
    failure = _first_failure(attempt_tasks)
    if all(item["outcome"] == "completed" for item in exits):
        error = register_outputs_in(connection, row, now)
        if error is None:
            move_in(
                connection, row, JobStatus.COMPLETED, now=now, message="The command ended with exit code 0."
            )
            return JobStatus.COMPLETED
        return _fail(connection, row, now, "UserError", error[0], error[1])
    if canceled:
        move_in(connection, row, JobStatus.CANCELED, now=now, message="Stopped as requested.")
        return JobStatus.CANCELED
    assert failure is not None
    if not failure.get("user_error", True) and row.attempt < MAX_ATTEMPTS:
        requeue_in(connection, row, now, failure["code"], failure["message"])
        return None
    kind = "UserError" if failure.get("user_error", True) else "SystemError"
    return _fail(connection, row, now, kind, failure.get("code") or "Failed", failure.get("message") or "")


def requeue_in(connection: sa.Connection, row: JobRow, now: float, code: str, message: str) -> None:
    """Send a job back to the queue for its next attempt."""
    move_in(
        connection,
        row,
        JobStatus.QUEUED,
        now=now,
        code=code,
        message=f"Attempt {row.attempt} ended: {message} The job is tried again.",
        reason={"code": code, "message": message, "since": now},
    )


def lose_task_in(connection: sa.Connection, task: Any, now: float, reason: str) -> JobStatus | None:
    """A task's node is gone: the task is over, and its job is tried again or fails.

    Returns the job's status if it is over now.
    """
    record = {
        "outcome": "failed",
        "code": "NodeLost",
        "message": f"Node {task.node_id} was lost: {reason}",
        "user_error": False,
    }
    connection.execute(
        tasks.update().where(tasks.c.id == task.id).values(exit=record, phase="ended", ended_at=now)
    )
    row = find_in(connection, task.workspace_id, task.job)
    if row is None or row.attempt != task.attempt or JobStatus(row.status) in TERMINAL:
        return None
    stop_tasks_in(connection, row, reason="PeerLost")
    return settle_in(connection, row, now)


def cancel_in(connection: sa.Connection, row: JobRow, now: float, who: str) -> tuple[JobStatus, list[str]]:
    """Cancel a job: at once if nothing of it runs, else by asking its tasks to stop.

    Returns its status and the nodes to tell. A job that is being canceled already is left as it is.
    """
    status = JobStatus(row.status)
    if status is JobStatus.CANCEL_REQUESTED:
        return status, []
    running = (
        [task for task in tasks_in(connection, row) if task.ended_at is None] if status in ON_NODE else []
    )
    if not running:
        move_in(connection, row, JobStatus.CANCELED, now=now, message="Canceled before it started.", who=who)
        return JobStatus.CANCELED, []
    move_in(connection, row, JobStatus.CANCEL_REQUESTED, now=now, message="Cancel requested.", who=who)
    return JobStatus.CANCEL_REQUESTED, stop_tasks_in(connection, row, reason="Canceled")


def _first_failure(attempt_tasks: list[Any]) -> dict[str, Any] | None:
    """The failure that came first; tasks that were stopped because of another do not count as one."""
    failed = [task for task in attempt_tasks if task.exit["outcome"] == "failed"]
    stopped = [task for task in attempt_tasks if task.exit["outcome"] == "stopped"]
    candidates = sorted(failed, key=lambda task: (task.ended_at, task.rank)) or stopped
    if not candidates:
        return None
    exit_record: dict[str, Any] = candidates[0].exit
    if len(attempt_tasks) > 1:
        return {**exit_record, "message": f"Node {candidates[0].rank}: {exit_record.get('message', '')}"}
    return exit_record


def _fail(
    connection: sa.Connection, row: JobRow, now: float, kind: str, code: str, message: str
) -> JobStatus:
    error = {"code": kind, "message": message, "details": [{"code": code, "message": message}]}
    if JobStatus(row.status) is JobStatus.CANCEL_REQUESTED:
        # Asked to stop and ended badly while stopping: what was asked for is what happened.
        move_in(connection, row, JobStatus.CANCELED, now=now, code=code, message=message)
        return JobStatus.CANCELED
    move_in(connection, row, JobStatus.FAILED, now=now, code=code, message=message, error=error)
    return JobStatus.FAILED
