"""The registry of curated environments through the unmodified SDK."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from azure.ai.ml import Input, MLClient, command
from azure.ai.ml.entities import BuildContext, Data, Environment, Model
from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential

from tests.conftest import SUBSCRIPTION, WORKSPACE_PATH
from tests.sdk.waiting import describe, wait_for_job
from tests.server import ServerProcess

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


@pytest.fixture(scope="module")
def own_registry(server: ServerProcess) -> str:
    """A registry to write to. It begins with its first asset."""
    name = f"r{uuid.uuid4().hex[:8]}"
    path = (
        f"/regrp/mferp/managementfrontend/subscriptions/{SUBSCRIPTION}/resourceGroups/registries"
        f"/providers/Microsoft.MachineLearningServices/registries/{name}/environments/first/versions/1"
    )
    with server.client() as client:
        assert client.put(path, json={"properties": {"image": "python:3.11"}}).status_code == 201
    return name


def test_a_model_is_registered_in_a_registry_and_downloaded(
    credential: DefaultAzureCredential, own_registry: str, name: str, tmp_path: Path
) -> None:
    registry = MLClient(credential, registry_name=own_registry, show_progress=False)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"1")
    made = registry.models.create_or_update(Model(name=name, version="1", path=str(tmp_path / "model")))
    assert made.id == f"azureml://registries/{own_registry}/models/{name}/versions/1"
    registry.models.download(name, version="1", download_path=str(tmp_path / "down"))
    assert (tmp_path / "down" / name / "model" / "weights").read_bytes() == b"1"
    assert [item.version for item in registry.models.list(name=name)] == ["1"]


def test_a_model_is_shared_and_outlives_its_workspace_version(
    ml_client: MLClient, credential: DefaultAzureCredential, own_registry: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {sklearn: {version: 1.5}}")
    ml_client.models.create_or_update(
        Model(name=name, version="1", path=str(tmp_path / "model"), type="mlflow_model", tags={"a": "b"})
    )
    shared = ml_client.models.share(
        name, "1", registry_name=own_registry, share_with_name=f"{name}-shared", share_with_version="7"
    )
    assert shared.id == f"azureml://registries/{own_registry}/models/{name}-shared/versions/7"
    assert (shared.type, shared.tags) == ("mlflow_model", {"a": "b"})
    assert shared.flavors["sklearn"] == {"version": "1.5"}
    registry = MLClient(credential, registry_name=own_registry, show_progress=False)
    registry.models.download(f"{name}-shared", version="7", download_path=str(tmp_path / "down"))
    assert list((tmp_path / "down").rglob("MLmodel"))


def test_data_is_shared_and_used_by_a_job(
    ml_client: MLClient, server: ServerProcess, own_registry: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("shared\n")
    ml_client.data.create_or_update(
        Data(name=name, version="1", path=str(tmp_path / "a.csv"), type="uri_file")
    )
    shared = ml_client.data.share(
        name, "1", registry_name=own_registry, share_with_name=name, share_with_version="1"
    )
    job = ml_client.jobs.create_or_update(
        command(
            command="grep shared ${{inputs.data}}",
            environment=f"azureml://registries/{own_registry}/environments/first/versions/1",
            inputs={"data": Input(type="uri_file", path=shared.id)},
        )
    )
    with server.client() as client:
        wait_for_job(client, job.name)
        assert ml_client.jobs.get(job.name).status == "Completed", describe(client, job.name)


def test_an_environment_is_shared_with_its_build_context(
    ml_client: MLClient, own_registry: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM python:3.11\n")
    ml_client.environments.create_or_update(
        Environment(name=name, version="1", build=BuildContext(path=str(tmp_path / "context")))
    )
    shared = ml_client.environments.share(
        name, "1", registry_name=own_registry, share_with_name=name, share_with_version="1"
    )
    assert shared.id == f"azureml://registries/{own_registry}/environments/{name}/versions/1"
    assert "/reg-" in shared.build.path
    assert shared.build.path.endswith("/context/")


def test_registries_are_resources(ml_client: MLClient, own_registry: str) -> None:
    assert {"azureml", own_registry} <= {item.name for item in ml_client.registries.list()}
    assert ml_client.registries.get("azureml").name == "azureml"


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
