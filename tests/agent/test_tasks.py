"""Tasks from arrival to outcome, with a real agent, shim and processes."""

from __future__ import annotations

from typing import Any


def test_runs_a_command_and_ships_its_log(node: Any) -> None:
    end = node.run("echo hello; echo oops >&2; printf 'no newline'")
    assert (end.outcome, end.exit_code, end.code) == ("completed", 0, "")
    assert node.control_plane.log("job-1.0") == b"hello\noops\nno newline"
    assert node.control_plane.phases(node.name, "job-1.0") == [
        "environment", "data", "starting", "running", "finalizing",
    ]  # fmt: skip
