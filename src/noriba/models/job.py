"""The states of a job and how it moves between them (architecture.md, State machines).

Status values are Azure ML's. One table owns the transitions; anything else raises.
"""

from __future__ import annotations

from enum import StrEnum

from noriba.models.errors import IllegalTransition


class JobStatus(StrEnum):
    NOT_STARTED = "NotStarted"
    QUEUED = "Queued"
    PROVISIONING = "Provisioning"
    PREPARING = "Preparing"
    STARTING = "Starting"
    RUNNING = "Running"
    FINALIZING = "Finalizing"
    CANCEL_REQUESTED = "CancelRequested"
    CANCELED = "Canceled"
    COMPLETED = "Completed"
    FAILED = "Failed"
    NOT_RESPONDING = "NotResponding"
    PAUSED = "Paused"


_S = JobStatus
TERMINAL = frozenset({_S.CANCELED, _S.COMPLETED, _S.FAILED})
"""A job in one of these is over: it holds nothing and never changes again."""

WAITING = frozenset({_S.NOT_STARTED, _S.QUEUED})
"""A job in one of these holds no node."""

ON_NODE = frozenset(
    {_S.PROVISIONING, _S.PREPARING, _S.STARTING, _S.RUNNING, _S.FINALIZING, _S.NOT_RESPONDING}
)
"""A job in one of these has nodes, or is waiting for theirs to come up."""

_FORWARD = [_S.NOT_STARTED, _S.QUEUED, _S.PROVISIONING, _S.PREPARING, _S.STARTING, _S.RUNNING, _S.FINALIZING]


def _table() -> dict[JobStatus, frozenset[JobStatus]]:
    table: dict[JobStatus, set[JobStatus]] = {status: set() for status in JobStatus}
    for index, status in enumerate(_FORWARD):
        # Phases may be skipped (a warm node is not provisioned) but not run backwards.
        table[status].update(_FORWARD[index + 1 :])
        table[status].update({_S.CANCEL_REQUESTED, _S.CANCELED, _S.FAILED})
    for status in (_S.PREPARING, _S.STARTING, _S.RUNNING, _S.FINALIZING):
        table[status].update({_S.COMPLETED, _S.NOT_RESPONDING})
    # A lost or evicted node sends the job back to the queue for its next attempt.
    for status in ON_NODE:
        table[status].update({_S.QUEUED})
    table[_S.NOT_RESPONDING].update(
        {_S.PREPARING, _S.STARTING, _S.RUNNING, _S.FINALIZING, _S.COMPLETED, _S.FAILED, _S.CANCELED}
        | {_S.CANCEL_REQUESTED}
    )
    # Work that ended before the stop reached it keeps its own outcome.
    table[_S.CANCEL_REQUESTED].update({_S.CANCELED, _S.COMPLETED, _S.FAILED})
    table[_S.PAUSED].update({_S.QUEUED, _S.RUNNING, _S.CANCEL_REQUESTED, _S.CANCELED, _S.FAILED})
    table[_S.RUNNING].add(_S.PAUSED)
    table[_S.QUEUED].add(_S.PAUSED)
    return {status: frozenset(targets) for status, targets in table.items()}


TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = _table()


def can_move(current: JobStatus, target: JobStatus) -> bool:
    """Whether a job may go from ``current`` to ``target``."""
    return target in TRANSITIONS[current]


def check_move(current: JobStatus, target: JobStatus) -> None:
    """Raise IllegalTransition unless the job may go from ``current`` to ``target``."""
    if not can_move(current, target):
        raise IllegalTransition(f"A job can not go from {current} to {target}")
