"""A job is a run: what it logs shows on the job, and what it registers in the workspace's models."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from azure.ai.ml import Input, MLClient, command
from azure.ai.ml.constants import AssetTypes
from azure.ai.ml.entities import Environment

from tests.conftest import WORKSPACE_PATH
from tests.sdk.waiting import describe, wait_for_job
from tests.server import ServerProcess

pytestmark = [pytest.mark.sdk, pytest.mark.slow, pytest.mark.timeout(600)]

TRACKING = Environment(
    image="python:3.11",
    conda_file={
        "dependencies": [
            "python=3.11",
            {"pip": ["mlflow-skinny>=3.15,<4", "azureml-mlflow", "setuptools<81"]},
        ]
    },
)

TRAIN = """
import os, sys
if sys.argv[1] == "azure":
    host = os.environ["AZUREML_SERVICE_ENDPOINT"].removeprefix("https://")
    uri = f"azureml://{host}/mlflow/v1.0{os.environ['AZUREML_WORKSPACE_SCOPE']}"
    os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_REGISTRY_URI"] = uri
import mlflow
with mlflow.start_run() as run:
    assert run.info.run_id == os.environ["AZUREML_RUN_ID"]
    mlflow.log_param("depth", 3)
    mlflow.log_metric("loss", 0.25, step=1)
    mlflow.set_tag("stage", "dev")
    mlflow.log_text("hello", "notes/a.txt")
    mlflow.log_text("flavors: {}", "model/MLmodel")
    with mlflow.start_run(nested=True, run_name="child"):
        mlflow.log_metric("loss", 0.5)
# The run is over for MLflow; the job goes on.
if sys.argv[1] == "azure":
    # What the plugin does in the background shortly before its token expires.
    from azureml.mlflow._common._authentication.azureml_token_authentication import AzureMLTokenAuthentication
    (auth,) = AzureMLTokenAuthentication._registered_auth.values()
    before = auth.token
    AzureMLTokenAuthentication.EXPIRATION_THRESHOLD_IN_SECONDS = 10**9
    auth._update_auth()
    assert auth.token != before
client = mlflow.MlflowClient()
client.create_registered_model(sys.argv[2])
client.create_model_version(sys.argv[2], f"runs:/{run.info.run_id}/model", run.info.run_id)
print("still here", mlflow.get_run(run.info.run_id).info.status)
"""


@pytest.mark.parametrize("kind", ["plain", "azure"])
def test_what_a_job_logs_shows_on_the_job(
    ml_client: MLClient, server: ServerProcess, tmp_path: Path, kind: str
) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "train.py").write_text(TRAIN)
    model_name = f"credit-{uuid.uuid4().hex[:8]}"
    experiment = f"tracking-{kind}"
    job = ml_client.jobs.create_or_update(
        command(
            code=str(source),
            command=f"python train.py {kind} {model_name}",
            environment=TRACKING,
            experiment_name=experiment,
            tags={"team": "risk"},
        )
    )
    with server.client() as client:
        wait_for_job(client, job.name, timeout_s=400)
        found = ml_client.jobs.get(job.name)
        story = describe(client, job.name)
        assert found.status == "Completed", story
        assert "still here RUNNING" in story
        assert found.tags["team"] == "risk"
        assert found.tags["stage"] == "dev"
        assert not [tag for tag in found.tags if tag.startswith("mlflow.")]
        run = client.get("/api/2.0/mlflow/runs/get", params={"run_id": job.name}).json()["run"]
        assert (run["info"]["status"], run["data"]["params"]) == (
            "FINISHED",
            [{"key": "depth", "value": "3"}],
        )
        assert {item["key"]: item["value"] for item in run["data"]["metrics"]} == {"loss": 0.25}
        named = client.get(
            "/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": experiment}
        ).json()["experiment"]
        assert run["info"]["experiment_id"] == named["experiment_id"]
        children = client.post(
            "/api/2.0/mlflow/runs/search",
            json={
                "experiment_ids": [named["experiment_id"]],
                "filter": f"tags.mlflow.parentRunId = '{job.name}'",
            },
        ).json()["runs"]
        assert [child["info"]["run_name"] for child in children] == ["child"]

    ml_client.jobs.download(job.name, download_path=tmp_path / "down")
    assert (tmp_path / "down" / "artifacts" / "notes" / "a.txt").read_text() == "hello"
    model = ml_client.models.get(model_name, label="latest")
    assert (model.type, model.version) == ("mlflow_model", "1")
    ml_client.models.download(model_name, "1", download_path=tmp_path / "model")
    assert list((tmp_path / "model").rglob("MLmodel"))

    reader = ml_client.jobs.create_or_update(
        command(
            command="cat ${{inputs.model}}/MLmodel",
            environment=Environment(image="python:3.11"),
            inputs={"model": Input(type=AssetTypes.MLFLOW_MODEL, path=f"azureml:{model_name}:1")},
        )
    )
    with server.client() as client:
        wait_for_job(client, reader.name)
        assert "flavors: {}" in describe(client, reader.name)


def test_a_model_of_the_sdk_is_read_with_mlflow(
    ml_client: MLClient, server: ServerProcess, tmp_path: Path, name: str
) -> None:
    from azure.ai.ml.entities import Model

    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}")
    ml_client.models.create_or_update(
        Model(name=name, path=str(folder), type=AssetTypes.MLFLOW_MODEL, tags={"by": "sdk"})
    )
    with server.client() as client:
        version = client.get(
            "/api/2.0/mlflow/model-versions/get", params={"name": name, "version": "1"}
        ).json()["model_version"]
        assert version["tags"] == [{"key": "by", "value": "sdk"}]
        uri = client.get(
            "/api/2.0/mlflow/model-versions/get-download-uri", params={"name": name, "version": "1"}
        ).json()["artifact_uri"]
        path = uri.removeprefix("mlflow-artifacts:/")
        file = client.get(f"/api/2.0/mlflow-artifacts/artifacts/{path}/MLmodel")
        assert file.text == "flavors: {}"
        assert client.get(f"{WORKSPACE_PATH}/models/{name}").status_code == 200
