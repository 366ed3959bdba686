"""Models through the unmodified SDK."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.ai.ml import MLClient, command
from azure.ai.ml.constants import AssetTypes
from azure.ai.ml.entities import Environment, Model
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

from tests.sdk.waiting import wait_for_job
from tests.server import ServerProcess

pytestmark = pytest.mark.sdk

MLMODEL = """\
artifact_path: model
flavors:
  python_function:
    loader_module: mlflow.sklearn
    python_version: 3.11.7
  sklearn:
    sklearn_version: 1.5.2
run_id: 1234
"""


@pytest.fixture
def mlflow_model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "model.pkl").write_bytes(b"pickle")
    return folder


def test_a_file_is_registered_and_downloaded(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"weights")
    ml_client.models.create_or_update(
        Model(name=name, version="1", path=str(file), description="d", tags={"a": "b"}, properties={"p": "q"})
    )
    found = ml_client.models.get(name, version="1")
    assert (found.type, found.description, found.tags) == ("custom_model", "d", {"a": "b"})
    assert found.properties["p"] == "q"
    assert not found.flavors
    ml_client.models.download(name, version="1", download_path=str(tmp_path / "down"))
    assert (tmp_path / "down" / name / "model.bin").read_bytes() == b"weights"


def test_an_mlflow_model_has_flavors_and_is_downloaded(
    ml_client: MLClient, name: str, tmp_path: Path, mlflow_model: Path
) -> None:
    ml_client.models.create_or_update(
        Model(name=name, version="1", path=str(mlflow_model), type=AssetTypes.MLFLOW_MODEL)
    )
    found = ml_client.models.get(name, version="1")
    assert found.flavors["python_function"]["loader_module"] == "mlflow.sklearn"
    assert found.flavors["sklearn"] == {"sklearn_version": "1.5.2"}
    ml_client.models.download(name, version="1", download_path=str(tmp_path / "down"))
    assert (tmp_path / "down" / name / "model" / "MLmodel").read_text() == MLMODEL


def test_versions_count_up(ml_client: MLClient, name: str, mlflow_model: Path) -> None:
    def create() -> str:
        return str(ml_client.models.create_or_update(Model(name=name, path=str(mlflow_model))).version)

    assert [create(), create()] == ["1", "2"]
    assert ml_client.models.get(name, label="latest").version == "2"
    assert [item.version for item in ml_client.models.list(name=name)] == ["2", "1"]


def test_a_path_in_a_datastore_is_a_model(ml_client: MLClient, name: str) -> None:
    path = "azureml://datastores/workspaceblobstore/paths/models/m"
    made = ml_client.models.create_or_update(Model(name=name, version="1", path=path))
    assert made.path.startswith("azureml://subscriptions/")
    assert made.path.endswith("/datastores/workspaceblobstore/paths/models/m")
    with pytest.raises(ResourceExistsError, match="modelUri"):
        ml_client.models.create_or_update(Model(name=name, version="1", path=path + "2"))
    # The same place in its long form is the same model.
    ml_client.models.create_or_update(Model(name=name, version="1", path=made.path, tags={"x": "y"}))
    assert ml_client.models.get(name, version="1").tags == {"x": "y"}


def test_stages_filter_and_stay(ml_client: MLClient, name: str) -> None:
    for version, stage in (("1", "Production"), ("2", "Development")):
        ml_client.models.create_or_update(
            Model(
                name=name,
                version=version,
                stage=stage,
                path="azureml://datastores/workspaceblobstore/paths/models/m",
            )
        )
    assert [item.version for item in ml_client.models.list(name=name, stage="Production")] == ["1"]
    ml_client.models.archive(name, version="1")
    ml_client.models.restore(name, version="1")
    assert ml_client.models.get(name, version="1").stage == "Production"


def test_a_model_of_a_job_that_is_not_there_is_refused(ml_client: MLClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError, match="no_such_job"):
        ml_client.models.create_or_update(
            Model(name=name, version="1", path="azureml://jobs/no_such_job/outputs/artifacts/paths/model/")
        )


def test_what_a_job_logged_becomes_a_model(
    ml_client: MLClient, server: ServerProcess, name: str, tmp_path: Path
) -> None:
    job = ml_client.jobs.create_or_update(
        command(
            command=f"mkdir -p outputs/model && printf '%s' '{MLMODEL}' > outputs/model/MLmodel",
            environment=Environment(image="python:3.11"),
        )
    )
    with server.client() as client:
        wait_for_job(client, job.name)
    for version, path in (
        ("1", f"azureml://jobs/{job.name}/outputs/artifacts/paths/outputs/model/"),
        ("2", f"runs:/{job.name}/outputs/model"),
    ):
        ml_client.models.create_or_update(Model(name=name, version=version, path=path, type="mlflow_model"))
        found = ml_client.models.get(name, version=version)
        assert found.path.endswith(
            f"/workspaceartifactstore/paths/ExperimentRun/dcid.{job.name}/outputs/model"
        )
        assert found.flavors["sklearn"] == {"sklearn_version": "1.5.2"}
        ml_client.models.download(name, version=version, download_path=str(tmp_path / version))
        assert (tmp_path / version / name / "model" / "MLmodel").read_text() == MLMODEL
