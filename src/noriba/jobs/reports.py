"""What agents report, applied to the database (agent/protocol.py says why repeating a report is harmless)."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from noriba import datastores
from noriba.agent.protocol import (
    Event,
    LogChunk,
    LogSize,
    SyncRequest,
    TaskExited,
    TaskOutputStored,
    TaskPhase,
    TaskRendezvous,
    TaskSamples,
    TaskWarning,
)
from noriba.assets.resolving import artifacts_path
from noriba.database.tables import job_samples, jobs, nodes, tasks, workspaces
from noriba.jobs.finish import change_task_in, settle_in, stop_tasks_in
from noriba.jobs.plans import move_node_in
from noriba.jobs.store import JobRow, add_event_in, add_warning_in, find_in, move_in, tasks_in
from noriba.models.errors import NotFound
from noriba.models.job import ON_NODE, JobStatus, can_move
from noriba.models.node import ALIVE, NodeState
from noriba.storage.blobs import BlobStore

ARTIFACT_CONTAINER = datastores.BUILT_IN[datastores.ARTIFACTS].container
_PHASE_STATUS = {
    "environment": JobStatus.PREPARING,
    "data": JobStatus.PREPARING,
    "starting": JobStatus.STARTING,
    "running": JobStatus.RUNNING,
    "finalizing": JobStatus.FINALIZING,
}
_PHASE_ORDER = ["assigned", *_PHASE_STATUS, "ended"]


class Applied(msgspec.Struct, kw_only=True):
    """What a report led to. ``notify`` are nodes that have something new to hear; ``wake`` asks for a cycle."""

    acked_seq: int
    node_state: str
    log_sizes: list[LogSize] = []
    notify: list[str] = []
    wake: bool = False
    ended: list[tuple[str, str, str]] = []
    """(workspace id, job, status) of jobs that are over now."""


def apply_in(
    connection: sa.Connection, blobs: BlobStore, node_id: str, report: SyncRequest, now: float
) -> Applied:
    """Apply a report. Raises NotFound for a node that never was."""
    node = connection.execute(sa.select(nodes).where(nodes.c.id == node_id)).one_or_none()
    if node is None:
        raise NotFound("There is no such node.", code="NodeNotFound")
    applied = Applied(acked_seq=node.event_seq, node_state=node.state)
    if node.state not in [state.value for state in ALIVE]:
        return applied
    values: dict[str, Any] = {"seen_at": now}
    if report.facts is not None:
        values.update(facts=msgspec.to_builtins(report.facts), incarnation=report.incarnation)
    if node.ready_at is None:
        values.update(ready_at=now)
    _Apply(connection, blobs, node, now, applied).run(report)
    if applied.acked_seq != node.event_seq:
        values["event_seq"] = applied.acked_seq
    connection.execute(nodes.update().where(nodes.c.id == node_id).values(**values))
    if node.state in (NodeState.REQUESTED.value, NodeState.PROVISIONING.value):
        _arrived_in(connection, node, now, applied)
    return applied


def _arrived_in(connection: sa.Connection, node: Any, now: float, applied: Applied) -> None:
    """The node called home for the first time."""
    held = [
        row.job
        for row in connection.execute(
            sa.select(tasks.c.job).where(tasks.c.node_id == node.id, tasks.c.ended_at.is_(None))
        )
    ]
    state = NodeState.BUSY if held else NodeState.IDLE
    move_node_in(connection, node.id, state, now, only_from=(NodeState.REQUESTED, NodeState.PROVISIONING))
    applied.node_state = state.value
    applied.wake |= not held
    for name in held:
        row = find_in(connection, node.workspace_id, name)
        if row is not None and row.status == JobStatus.PROVISIONING.value and _all_there(connection, row):
            move_in(connection, row, JobStatus.PREPARING, now=now, message="All nodes are there.")


def _all_there(connection: sa.Connection, row: JobRow) -> bool:
    query = (
        sa.select(sa.func.count())
        .select_from(tasks.join(nodes, nodes.c.id == tasks.c.node_id))
        .where(
            tasks.c.workspace_id == row.workspace_id,
            tasks.c.job == row.name,
            tasks.c.attempt == row.attempt,
            nodes.c.ready_at.is_(None),
        )
    )
    return connection.execute(query).scalar_one() == 0


class _Apply:
    """One report being applied."""

    def __init__(
        self, connection: sa.Connection, blobs: BlobStore, node: Any, now: float, applied: Applied
    ) -> None:
        self.connection = connection
        self.blobs = blobs
        self.node = node
        self.now = now
        self.applied = applied
        self._tasks: dict[str, Any] = {}

    def run(self, report: SyncRequest) -> None:
        # Logs first: a task's last lines must be visible before its end is.
        for chunk in report.logs:
            self._log(chunk)
        for event in report.events:
            if event.seq <= self.applied.acked_seq:
                continue
            if event.seq != self.applied.acked_seq + 1:
                # A gap: the agent sends again from what we acknowledge.
                break
            self._event(event)
            self.applied.acked_seq = event.seq

    def _task(self, task_id: str) -> Any:
        if task_id not in self._tasks:
            self._tasks[task_id] = self.connection.execute(
                sa.select(tasks).where(tasks.c.id == task_id, tasks.c.node_id == self.node.id)
            ).one_or_none()
        return self._tasks[task_id]

    def _job(self, task: Any) -> JobRow | None:
        """The job, if the task is of its current attempt."""
        row = find_in(self.connection, task.workspace_id, task.job)
        return row if row is not None and row.attempt == task.attempt else None

    def _log(self, chunk: LogChunk) -> None:
        task = self._task(chunk.task_id)
        end = chunk.offset + len(chunk.data)
        if task is None:
            # Nobody wants it any more; saying we have it lets the agent forget it.
            self.applied.log_sizes.append(LogSize(task_id=chunk.task_id, file=chunk.file, size=end))
            return
        account = self.connection.execute(
            sa.select(workspaces.c.storage_account).where(workspaces.c.id == task.workspace_id)
        ).scalar_one()
        name = artifacts_path(task.job) + chunk.file
        base = self._log_base(task, account, name, chunk.file)
        held = self.blobs.append_in(
            self.connection, account, ARTIFACT_CONTAINER, name, base + chunk.offset, chunk.data, self.now
        )
        self.applied.log_sizes.append(LogSize(task_id=chunk.task_id, file=chunk.file, size=held - base))

    def _log_base(self, task: Any, account: str, name: str, file: str) -> int:
        """Where this attempt's lines begin: the logs of one job go on in the same file over its attempts."""
        if task.attempt <= 1:
            return 0
        bases = dict(task.log_bases or {})
        if file not in bases:
            bases[file] = self.blobs.append_in(
                self.connection, account, ARTIFACT_CONTAINER, name, 0, b"", self.now
            )
            self.connection.execute(tasks.update().where(tasks.c.id == task.id).values(log_bases=bases))
            self._tasks.pop(task.id)
        return int(bases[file])

    def _event(self, event: Event) -> None:
        task = self._task(event.task_id)
        if task is None or task.ended_at is not None:
            return
        match event:
            case TaskPhase():
                self._phase(task, event)
            case TaskRendezvous():
                self._rendezvous(task, event)
            case TaskSamples():
                self.connection.execute(
                    job_samples.insert(),
                    [
                        {
                            "workspace_id": task.workspace_id,
                            "job": task.job,
                            "rank": task.rank,
                            "at": sample.at,
                            "sample": msgspec.to_builtins(sample),
                        }
                        for sample in event.samples
                    ],
                )
            case TaskWarning():
                row = self._job(task)
                if row is not None:
                    add_warning_in(self.connection, row, at=self.now, code=event.code, message=event.message)
            case TaskOutputStored():
                row = self._job(task)
                if row is not None:
                    outputs = {**(row.outputs or {})}
                    outputs[event.name] = {"file_count": event.file_count, "size_bytes": event.size_bytes}
                    self.connection.execute(
                        jobs.update().where(jobs.c.sequence == row.sequence).values(outputs=outputs)
                    )
            case TaskExited():
                self._exited(task, event)

    def _phase(self, task: Any, event: TaskPhase) -> None:
        self.connection.execute(tasks.update().where(tasks.c.id == task.id).values(phase=event.phase))
        self._tasks.pop(task.id)
        row = self._job(task)
        if row is None:
            return
        add_event_in(
            self.connection,
            row.workspace_id,
            row.name,
            at=event.at,
            kind="phase",
            attempt=task.attempt,
            code=event.phase,
            message=event.message or None,
            who=f"{self.node.id}/{task.rank}",
        )
        phases = [
            _PHASE_ORDER.index(other.phase)
            for other in tasks_in(self.connection, row)
            if other.ended_at is None
        ]
        running = _PHASE_ORDER.index("running")
        # A gang runs as soon as one of its nodes does, and finalises when all do.
        reached = min(phases) if min(phases) > running else min(max(phases), running)
        status = _PHASE_STATUS.get(_PHASE_ORDER[reached])
        if (
            status is not None
            and status.value != row.status
            and JobStatus(row.status) in ON_NODE
            and can_move(JobStatus(row.status), status)
            and not (row.status == JobStatus.PROVISIONING.value and not _all_there(self.connection, row))
        ):
            move_in(self.connection, row, status, now=self.now)

    def _rendezvous(self, task: Any, event: TaskRendezvous) -> None:
        row = self._job(task)
        if row is None:
            return
        for other in tasks_in(self.connection, row):
            if other.ended_at is None and other.leader != event.address:
                self.applied.notify.append(change_task_in(self.connection, other, {"leader": event.address}))
                self._tasks.pop(other.id, None)

    def _exited(self, task: Any, event: TaskExited) -> None:
        self._tasks.pop(task.id)
        end_task_in(self.connection, task, msgspec.to_builtins(event), self.now, self.applied)


def end_task_in(
    connection: sa.Connection, task: Any, record: dict[str, Any], now: float, applied: Applied
) -> None:
    """Write a task's end (``record`` is a TaskExited), and what follows for its node, its peers and its job."""
    connection.execute(
        tasks.update().where(tasks.c.id == task.id).values(exit=record, phase="ended", ended_at=now)
    )
    left = connection.execute(
        sa.select(sa.func.count()).where(tasks.c.node_id == task.node_id, tasks.c.ended_at.is_(None))
    ).scalar_one()
    if left == 0:
        move_node_in(connection, task.node_id, NodeState.IDLE, now, only_from=(NodeState.BUSY,))
    applied.wake = True
    row = find_in(connection, task.workspace_id, task.job)
    if row is None or row.attempt != task.attempt:
        return
    if record["outcome"] == "failed":
        applied.notify += stop_tasks_in(connection, row, reason="PeerFailed")
    status = settle_in(connection, row, now)
    if status is not None:
        applied.ended.append((row.workspace_id, row.name, status.value))


def refuse_task_in(connection: sa.Connection, task_id: str, code: str, message: str, now: float) -> Applied:
    """End a task that can not be started, because what its job refers to is gone."""
    applied = Applied(acked_seq=0, node_state="")
    task = connection.execute(
        sa.select(tasks).where(tasks.c.id == task_id, tasks.c.ended_at.is_(None))
    ).one_or_none()
    if task is not None:
        record = {"outcome": "failed", "code": code, "message": message, "user_error": True}
        end_task_in(connection, task, record, now, applied)
    return applied
