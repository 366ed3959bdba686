"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import ServerProcess

SUBSCRIPTION = "00000000-0000-4000-8000-000000000001"
RESOURCE_GROUP = "noriba"
WORKSPACE = "main"
WORKSPACE_PATH = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}"
    f"/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server process that the whole session shares. Tests use names of their own."""
    process = ServerProcess(Path(tmp_path_factory.mktemp("server")) / "home")
    process.start()
    yield process
    process.stop()


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server process for one test, not started yet."""
    process = ServerProcess(tmp_path / "home")
    yield process
    process.stop()
