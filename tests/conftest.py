"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import NewDatabase, new_database, postgresql, pytest_addoption
from tests.server import ServerProcess

__all__ = ["new_database", "new_server", "postgresql", "pytest_addoption", "server"]

SUBSCRIPTION = "00000000-0000-4000-8000-000000000001"
RESOURCE_GROUP = "noriba"
WORKSPACE = "main"
WORKSPACE_PATH = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}"
    f"/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
)


@pytest.fixture(scope="session")
def environment_store() -> Path:
    """Where servers under test keep built environments. They outlive the tests, as each takes a while to build."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "noriba-tests" / "environments"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, new_database: NewDatabase, environment_store: Path
) -> Iterator[ServerProcess]:
    """A server process that the whole session shares. Tests use names of their own."""
    home = Path(tmp_path_factory.mktemp("server")) / "home"
    process = ServerProcess(home, database=new_database(), environments=environment_store)
    process.start()
    yield process
    process.destroy()


@pytest.fixture
def new_server(tmp_path: Path, new_database: NewDatabase, environment_store: Path) -> Iterator[ServerProcess]:
    """A server process for one test, not started yet."""
    process = ServerProcess(tmp_path / "home", database=new_database(), environments=environment_store)
    yield process
    process.destroy()
