"""How a run's status (MLflow) and a job's status (Azure ML) say the same thing."""

from __future__ import annotations

from enum import StrEnum

from noriba.models.job import JobStatus


class RunStatus(StrEnum):
    RUNNING = "RUNNING"
    SCHEDULED = "SCHEDULED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


OVER = frozenset({RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED})
"""A run in one of these has an end time."""

_OF_JOB = {
    JobStatus.NOT_STARTED: RunStatus.SCHEDULED,
    JobStatus.QUEUED: RunStatus.SCHEDULED,
    JobStatus.PROVISIONING: RunStatus.SCHEDULED,
    JobStatus.PREPARING: RunStatus.SCHEDULED,
    JobStatus.STARTING: RunStatus.SCHEDULED,
    JobStatus.RUNNING: RunStatus.RUNNING,
    JobStatus.FINALIZING: RunStatus.RUNNING,
    JobStatus.CANCEL_REQUESTED: RunStatus.RUNNING,
    JobStatus.NOT_RESPONDING: RunStatus.RUNNING,
    JobStatus.PAUSED: RunStatus.RUNNING,
    JobStatus.COMPLETED: RunStatus.FINISHED,
    JobStatus.FAILED: RunStatus.FAILED,
    JobStatus.CANCELED: RunStatus.KILLED,
}

_OF_RUN = {
    RunStatus.RUNNING: JobStatus.RUNNING,
    RunStatus.SCHEDULED: JobStatus.NOT_STARTED,
    RunStatus.FINISHED: JobStatus.COMPLETED,
    RunStatus.FAILED: JobStatus.FAILED,
    RunStatus.KILLED: JobStatus.CANCELED,
}


def run_status(status: str) -> RunStatus:
    """The run's status for a job's status such as ``Preparing``; a run's own (``RUNNING``) stays as it is."""
    if status.isupper():
        return RunStatus(status)
    return _OF_JOB[JobStatus(status)]


def job_status(status: str) -> JobStatus:
    """The status under which a run that is no job appears among the jobs."""
    return _OF_RUN[RunStatus(status)]
