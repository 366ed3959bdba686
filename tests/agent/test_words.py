"""What is said about an end."""

from __future__ import annotations

from typing import Any

import pytest

from noriba.agent import words
from noriba.agent.folder import Exit, ProcessExit
from noriba.agent.verdict import LEADER_FINISHED, judge

GIB = 1 << 30


def ended(code: int | None = 0, **values: Any) -> Exit:
    return Exit(
        **{
            "cause": "exited", "started_at": 1.0, "ended_at": 2.0, "first": 0,
            "processes": [ProcessExit(name="main", code=code)], **values,
        }
    )  # fmt: skip


def verdict(end: Exit, **values: Any) -> Any:
    return judge(end, **{"timeout_s": None, "size": "Standard_X", "several": False, **values})


def test_verdicts() -> None:
    assert verdict(ended()).outcome == "completed"
    stopped = verdict(ended(-15, cause="stopped", reason="canceled by ada"))
    assert (stopped.outcome, stopped.message) == ("stopped", "canceled by ada")
    assert verdict(ended(-15, cause="stopped", reason=LEADER_FINISHED)).outcome == "completed"
    late = verdict(ended(-15, cause="timeout"), timeout_s=600.0)
    assert (late.code, "10 min 0 s" in late.message) == ("TimedOut", True)


def test_out_of_memory_of_the_size_and_of_the_machine() -> None:
    by_limit = verdict(ended(-9, oom_kills=1, memory_peak_bytes=4 * GIB - 4096, memory_limit_bytes=4 * GIB))
    assert by_limit.code == "OutOfMemory"
    assert (
        "killed by signal 9 (SIGKILL): the node ran out of memory: used 4.0 of 4.0 GiB (Standard_X)"
        in by_limit.message
    )
    by_machine = verdict(ended(137, oom_kills=1, memory_peak_bytes=GIB, memory_limit_bytes=4 * GIB))
    assert "the machine under the node ran out of memory (the job used 1.0 GiB)" in by_machine.message
    assert by_machine.exit_code == 137
    assert verdict(ended(0, oom_kills=1)).outcome == "completed"
    assert verdict(ended(-9)).code == "UserProcessKilled"


def test_several_processes_are_named() -> None:
    end = ended(processes=[ProcessExit(name="3", code=2)])
    assert verdict(end, several=True).message.startswith("Process 3 exited with code 2")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0123, "12 ms"), (3.26, "3.3 s"), (130.0, "2 min 10 s"), (7260.0, "2 h 1 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_sizes_and_signals() -> None:
    assert words.human_bytes(0) == "0 B"
    assert words.human_bytes(1536) == "1.5 KiB"
    assert words.human_bytes(5 * 1024**4) == "5.0 TiB"
    assert words.signal_in_exit_code(137) == 9
    assert words.signal_in_exit_code(127) is None
    assert words.signal_in_exit_code(255) is None
    assert words.signal_name(64) == "SIGRTMAX"
    assert words.signal_name(50) == "SIG50"
