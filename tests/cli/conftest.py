"""The ``noriba`` command as a user runs it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noriba.client.environment import UNSET
from noriba.home import Home
from tests.server import ServerProcess

Noriba = Callable[..., subprocess.CompletedProcess[str]]


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without anything that names a server or an identity."""
    ours = {"ARM_CLOUD_METADATA_URL", "MSI_ENDPOINT", "MSI_SECRET", "AZUREML_WORKSPACE_NAME", *UNSET}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith(("NORIBA_", "MLFLOW_"))
    }
    return {**kept, **more}


def run_noriba(
    *arguments: str, home: Path | None = None, cwd: Path | None = None, timeout_s: float = 120, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run ``noriba`` with ``NORIBA_HOME`` set to ``home`` and wait for it."""
    if home is not None:
        more["NORIBA_HOME"] = str(home)
    return subprocess.run(
        [sys.executable, "-m", "noriba.cli.main", *arguments],
        env=clean_environment(**more),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture
def noriba(server: ServerProcess, tmp_path: Path) -> Noriba:
    """``noriba`` for the shared server, run in an empty folder."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return run_noriba(*arguments, home=server.home.path, **{"cwd": tmp_path, **options})

    return run


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home for ``up --detach``; what still runs there afterwards is stopped."""
    path = tmp_path / "home"
    yield path
    if Home(path).server() is not None:
        run_noriba("down", "--all", home=path)


def result(process: subprocess.CompletedProcess[str]) -> Any:
    """The JSON that a command printed."""
    assert process.returncode == 0, process.stderr
    return msgspec.json.decode(process.stdout)
