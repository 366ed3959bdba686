"""How the line that a shim executes is made: the one place where a task's processes are put behind something.

``process``: nothing stands between, the task runs as the agent's user with a home and working folder of its own.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Isolation = Literal["process", "sandbox"]


class IsolationUnavailable(Exception):
    """The node can not put tasks behind what it was told to; the message is for its administrator."""


@dataclass(frozen=True)
class Surroundings:
    """What a task's processes may see: ``writable`` and ``readable`` are folders or files."""

    isolation: Isolation
    folder: Path
    writable: list[Path] = field(default_factory=list)
    readable: list[Path] = field(default_factory=list)


def bash() -> str:
    """The shell that runs commands."""
    return shutil.which("bash") or "/bin/bash"


def wrap(argv: list[str], surroundings: Surroundings) -> list[str]:
    """The command line that the shim executes for ``argv``. Raises ``IsolationUnavailable``."""
    if surroundings.isolation == "process":
        return argv
    raise IsolationUnavailable(
        f"This version can not isolate jobs as runtime.isolation = {surroundings.isolation!r} asks; set it to process."
    )
