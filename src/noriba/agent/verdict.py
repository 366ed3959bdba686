"""What became of a task, from what its shim wrote down. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from noriba.agent import words
from noriba.agent.folder import Exit

LEADER_FINISHED = "the leading part of the job has finished"
"""Reason of a stop that ends processes which only serve others (parameter servers, Ray workers)."""

_NEAR_LIMIT = 0.9


@dataclass(frozen=True)
class Verdict:
    """Fields of ``TaskExited``."""

    outcome: Literal["completed", "failed", "stopped"]
    exit_code: int | None = None
    signal: str | None = None
    code: str = ""
    message: str = ""
    user_error: bool = True


def judge(end: Exit, *, timeout_s: float | None, size: str, several: bool) -> Verdict:
    """``several``: the task ran more than one process, so messages name the one that is meant."""
    if end.cause == "not_started":
        return Verdict(
            "failed",
            code="UserProcessFailed",
            message=f"The command could not be started: {end.error}",
        )
    decisive = end.processes[end.first] if end.first is not None else None
    code = decisive.code if decisive is not None else None
    exit_code = code if code is not None and code >= 0 else None
    signal = words.signal_name(-code) if code is not None and code < 0 else None
    if end.cause == "stopped" and end.reason == LEADER_FINISHED:
        return Verdict("completed", exit_code=0)
    if end.cause == "stopped":
        return Verdict("stopped", message=end.reason or "The job was canceled.")
    if end.cause == "timeout":
        limit = words.duration(timeout_s or 0.0)
        return Verdict(
            "failed",
            code="TimedOut",
            message=f"The job ran longer than its limit of {limit} and was ended. "
            "Raise limits.timeout, or let the code do less.",
        )
    if code == 0:
        return Verdict("completed", exit_code=0)
    return _failed(
        end,
        code,
        exit_code,
        signal,
        size,
        f"Process {decisive.name} " if several and decisive else "The job's process ",
    )


def _failed(
    end: Exit, code: int | None, exit_code: int | None, signal: str | None, size: str, subject: str
) -> Verdict:
    verdict = Verdict("failed", exit_code=exit_code, signal=signal)
    died_of = -code if code is not None and code < 0 else words.signal_in_exit_code(code or 0)
    if end.oom_kills and died_of == 9:
        what = words.killed(9, _memory(end, size))
        return replace(verdict, code="OutOfMemory", message=f"{subject}was {what}.")
    if end.oom_kills:
        said = words.killed(died_of) if signal and died_of else words.exited(code or 0)
        return replace(
            verdict,
            code="OutOfMemory",
            message=f"{subject}{'was ' if signal else ''}{said}, after a process that it had started was "
            f"{words.killed(9, _memory(end, size))}.",
        )
    if code is not None and code < 0:
        return replace(verdict, code="UserProcessKilled", message=f"{subject}was {words.killed(-code)}.")
    return replace(
        verdict,
        code="UserProcessFailed",
        message=f"{subject}{words.exited(code or 0)}. Its log (user_logs) says more.",
    )


def _memory(end: Exit, size: str) -> str:
    limit = end.memory_limit_bytes
    by_limit = limit is not None and end.memory_peak_bytes >= limit * _NEAR_LIMIT
    return words.out_of_memory(end.memory_peak_bytes, limit if by_limit else None, size)
