"""The registry of curated environments through the unmodified SDK."""

from __future__ import annotations

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.entities import Environment
from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential

from tests.conftest import WORKSPACE_PATH

pytestmark = pytest.mark.sdk


@pytest.fixture(scope="module")
def registry(credential: DefaultAzureCredential) -> MLClient:
    return MLClient(credential, registry_name="azureml", show_progress=False)


def test_curated_environments_are_listed(registry: MLClient) -> None:
    names = {item.name for item in registry.environments.list()}
    assert "sklearn-1.5" in names
    assert len(names) >= 11
    versions = [item.version for item in registry.environments.list(name="sklearn-1.5")]
    assert versions
    assert versions[-1] == "1"


def test_the_latest_is_found(registry: MLClient) -> None:
    latest = registry.environments.get("sklearn-1.5", label="latest")
    listed = next(iter(registry.environments.list(name="sklearn-1.5")))
    assert latest.version == listed.version
    assert latest.id == f"azureml://registries/azureml/environments/sklearn-1.5/versions/{latest.version}"
    requirements = latest.conda_file["dependencies"][-1]["pip"]
    assert any(line.startswith("scikit-learn") for line in requirements)


def test_a_version_is_found(registry: MLClient) -> None:
    assert registry.environments.get("sklearn-1.5", version="1").version == "1"


def test_nobody_writes_to_it(registry: MLClient) -> None:
    with pytest.raises(HttpResponseError, match="can not be changed"):
        registry.environments.create_or_update(Environment(name="mine", version="1", image="ubuntu:22.04"))


def test_a_registry_that_is_not_there_is_told(credential: DefaultAzureCredential) -> None:
    with pytest.raises(HttpResponseError, match="There is no registry 'nowhere'"):
        MLClient(credential, registry_name="nowhere")


def test_the_workspace_shows_curated_environments_by_their_older_names(ml_client: MLClient) -> None:
    found = ml_client.environments.get("AzureML-sklearn-1.5", version="1")
    assert found.id == f"{WORKSPACE_PATH}/environments/AzureML-sklearn-1.5/versions/1"
    assert found.conda_file["dependencies"]
