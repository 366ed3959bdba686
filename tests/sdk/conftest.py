"""The official SDK as a client of the shared server, in this process."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.conftest import RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE
from tests.server import ServerProcess

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential


@pytest.fixture(scope="session")
def sdk_environment(server: ServerProcess) -> Iterator[None]:
    """The environment variables that ``noriba env`` exports, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.client_environment().items():
            patch.setenv(name, value)
        # What the SDK remembers of another server would win over the variables.
        patch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        patch.setenv("AZURE_ML_DISABLE_ON_DISK_CACHE", "true")
        yield
        os.environ.pop("AZUREML_CURRENT_CLOUD", None)


@pytest.fixture(scope="session")
def credential(sdk_environment: None) -> DefaultAzureCredential:
    """Signs in as the local user, by the managed-identity endpoint."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


@pytest.fixture(scope="session")
def ml_client(credential: DefaultAzureCredential) -> MLClient:
    """A client of the workspace that the server starts with."""
    from azure.ai.ml import MLClient

    return MLClient(credential, SUBSCRIPTION, RESOURCE_GROUP, WORKSPACE, show_progress=False)


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"n{uuid.uuid4().hex[:12]}"


@pytest.fixture
def new_name() -> Callable[[], str]:
    """Makes names that no other test uses."""
    return lambda: f"n{uuid.uuid4().hex[:12]}"
