"""Each example, as its reader runs it: ``noriba job create --file … --stream``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import WORKSPACE_PATH
from tests.sdk.waiting import describe, wait_for_job
from tests.server import ServerProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.sdk

EXPECTED: dict[str, dict[str, list[str]]] = {
    "hello": {"user_logs/std_log.txt": ["hello, world"]},
    "sklearn-iris": {"user_logs/std_log.txt": ["epoch 10", "model saved"]},
    "lightgbm-autolog": {"user_logs/std_log.txt": ["trained"]},
    "pytorch-distributed": {
        "user_logs/std_log_process_0.txt": ["rank 0 of 4 on node 0", "epoch 2 loss"],
        "user_logs/std_log_process_3.txt": ["rank 3 of 4 on node 1"],
    },
    "mpi": {f"user_logs/std_log_process_{i}.txt": [f"rank {i} of 4, local {i % 2}"] for i in range(4)},
    "conda-environment": {"user_logs/std_log.txt": ["numpy   1.26"]},
    "docker-context": {"user_logs/std_log.txt": ["hello from the Dockerfile", "0.9.0"]},
    "notebook": {"user_logs/std_log.txt": ["report.html"]},
    "multi-output": {"user_logs/std_log.txt": ["merged 3 rows"]},
    "managed-identity": {
        "user_logs/std_log.txt": [
            "DefaultAzureCredential: main (managed identity) for https://storage.azure.com"
        ]
    },
    "spot": {"user_logs/std_log.txt": ["on Standard_E4s_v3"]},
    "timeouts": {"user_logs/std_log.txt": ["saving what there is"]},
}
FAILS = {"timeouts"}
SLOW = {"lightgbm-autolog", "pytorch-distributed", "notebook"}


def test_every_example_is_run() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/job.yml")} == set(EXPECTED)


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> httpx.Client:
    return server.client()


@pytest.mark.parametrize(
    "example", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in EXPECTED]
)
def test_an_example_runs(example: str, server: ServerProcess, client: httpx.Client) -> None:
    name = f"example-{example}"
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "noriba.cli.main", "job", "create", "--home", str(server.home.path)),
            *("--file", str(EXAMPLES / example / "job.yml"), "--name", name),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    job = wait_for_job(client, name, timeout_s=280)
    if job["properties"]["status"] == "Failed" and "no build without CUDA in reach" in describe(client, name):
        pytest.skip("no CPU build of PyTorch is in reach: neither in find-links nor in PyTorch's own index")
    assert job["properties"]["status"] == ("Failed" if example in FAILS else "Completed"), describe(
        client, name
    )
    details = client.get(f"/history/v1.0{WORKSPACE_PATH}/runs/{name}/details").json()
    for file, expected in EXPECTED[example].items():
        log = client.get(details["logFiles"][file], headers={"Authorization": ""}).text
        for words in expected:
            assert words in log, describe(client, name)


def test_what_the_training_job_logged_is_there(server: ServerProcess, client: httpx.Client) -> None:
    name = "example-sklearn-iris"
    answer = client.get("/api/2.0/mlflow/runs/get", params={"run_id": name})
    if answer.status_code == 404:
        pytest.skip("the example was not run")
    run = answer.json()["run"]
    assert run["info"]["status"] == "FINISHED"
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert metrics["accuracy"] > 0.8
    history = client.get(
        "/api/2.0/mlflow/metrics/get-history", params={"run_id": name, "metric_key": "log_loss"}
    ).json()["metrics"]
    assert [metric["step"] for metric in history] == list(range(1, 11))
