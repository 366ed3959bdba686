"""Command jobs through the unmodified SDK, on real nodes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from azure.ai.ml import (
    Input,
    MLClient,
    MpiDistribution,
    Output,
    PyTorchDistribution,
    TensorFlowDistribution,
    command,
)
from azure.ai.ml.constants import AssetTypes
from azure.ai.ml.entities import Data, Environment, JobResourceConfiguration, Model
from azure.ai.ml.exceptions import JobException
from azure.core.exceptions import HttpResponseError, ResourceExistsError

from tests.conftest import WORKSPACE_PATH
from tests.sdk.waiting import describe, wait_for_job
from tests.server import ServerProcess

pytestmark = pytest.mark.sdk
PLAIN = Environment(image="python:3.11")
"""Python and nothing else: builds in a second."""


@pytest.fixture
def run(ml_client: MLClient, server: ServerProcess) -> Callable[..., Any]:
    """Submit a job and wait for its end."""

    def run(job: Any, status: str = "Completed") -> Any:
        submitted = ml_client.jobs.create_or_update(job)
        with server.client() as client:
            wait_for_job(client, submitted.name)
            found = ml_client.jobs.get(submitted.name)
            assert found.status == status, describe(client, submitted.name)
        return found

    return run


def log_of(server: ServerProcess, name: str, file: str = "user_logs/std_log.txt") -> str:
    """A log file of a job, as its address in run history gives it."""
    with server.client() as client:
        details = client.get(f"/history/v1.0{WORKSPACE_PATH}/runs/{name}/details").json()
        assert file in details["logFiles"], sorted(details["logFiles"])
        return client.get(details["logFiles"][file], headers={"Authorization": ""}).text


def test_inputs_of_every_kind_and_outputs_come_through(
    run: Callable[..., Any], ml_client: MLClient, server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "one.csv").write_text("a,b\n1,2\n")
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "two.txt").write_text("two")
    data = ml_client.data.create_or_update(
        Data(name="inputs-of-every-kind", path=str(folder), type=AssetTypes.URI_FOLDER)
    )
    model_folder = tmp_path / "model"
    model_folder.mkdir()
    (model_folder / "weights.bin").write_bytes(b"\x00\x01")
    model = ml_client.models.create_or_update(
        Model(name="a-model", path=str(model_folder), type=AssetTypes.CUSTOM_MODEL)
    )
    source = tmp_path / "src"
    source.mkdir()
    (source / "main.py").write_text(
        "import json, os, pathlib, sys\n"
        "a = dict(x.split('=', 1) for x in sys.argv[1:])\n"
        "seen = {'number': a['number'], 'file': open(a['file']).read(),\n"
        "  'folder': open(a['folder'] + '/deep/two.txt').read(), 'asset': open(a['asset'] + '/deep/two.txt').read(),\n"
        "  'model': open(a['model'] + '/weights.bin', 'rb').read().hex(), 'direct': a['direct'], 'optional': a.get('optional')}\n"
        "pathlib.Path(a['out']).mkdir(exist_ok=True)\n"
        "(pathlib.Path(a['out']) / 'seen.json').write_text(json.dumps(seen))\n"
        "pathlib.Path(a['single']).write_text('single')\n"
        "os.makedirs('outputs', exist_ok=True); open('outputs/artifact.txt', 'w').write('artifact')\n"
    )
    job = run(
        command(
            code=str(source),
            command="python main.py number=${{inputs.number}} file=${{inputs.file}} folder=${{inputs.folder}} "
            "asset=${{inputs.asset}} model=${{inputs.model}} direct=${{inputs.direct}} "
            "out=${{outputs.out}} single=${{outputs.single}}",
            inputs={
                "number": 3,
                "file": Input(type=AssetTypes.URI_FILE, path=str(tmp_path / "one.csv")),
                "folder": Input(type=AssetTypes.URI_FOLDER, path=str(folder), mode="download"),
                "asset": Input(type=AssetTypes.URI_FOLDER, path=f"azureml:{data.name}:{data.version}"),
                "model": Input(type=AssetTypes.CUSTOM_MODEL, path=f"azureml:{model.name}:{model.version}"),
                "direct": Input(
                    type=AssetTypes.URI_FILE,
                    path="azureml://datastores/workspaceblobstore/paths/anything.csv",
                    mode="direct",
                ),
            },
            outputs={
                "out": Output(type=AssetTypes.URI_FOLDER, name="registered-output"),
                "single": Output(type=AssetTypes.URI_FILE),
            },
            environment=PLAIN,
            experiment_name="command-jobs",
            tags={"purpose": "test"},
        )
    )
    ml_client.jobs.download(job.name, download_path=tmp_path / "got", all=True)
    seen = json.loads((tmp_path / "got/named-outputs/out/seen.json").read_text())
    assert seen == {
        "number": "3",
        "file": "a,b\n1,2\n",
        "folder": "two",
        "asset": "two",
        "model": "0001",
        "direct": seen["direct"],
        "optional": None,
    }
    assert seen["direct"].startswith("azureml://")
    assert (tmp_path / "got/artifacts/outputs/artifact.txt").read_text() == "artifact"
    assert (tmp_path / "got/artifacts/user_logs/std_log.txt").exists()
    registered = ml_client.data.get("registered-output", label="latest")
    assert job.name in registered.path
    assert job.tags["purpose"] == "test"


def test_the_log_is_followed_live_and_a_failure_raises_in_stream(
    ml_client: MLClient, server: ServerProcess
) -> None:
    submitted = ml_client.jobs.create_or_update(
        command(command="echo first; sleep 2; echo second; exit 7", environment=PLAIN)
    )
    seen = io.StringIO()
    with redirect_stdout(seen), pytest.raises(JobException) as raised:
        ml_client.jobs.stream(submitted.name)
    assert "first" in seen.getvalue()
    assert "second" in seen.getvalue()
    assert "code 7" in str(raised.value)


def test_environment_variables_and_facts_of_the_run(run: Callable[..., Any], server: ServerProcess) -> None:
    job = run(
        command(
            command="env | sort; pwd; id -u",
            environment=PLAIN,
            environment_variables={"GREETING": "hello there"},
            experiment_name="variables",
        )
    )
    log = log_of(server, job.name)
    assert "GREETING=hello there" in log
    assert f"AZUREML_RUN_ID={job.name}" in log
    assert f"MLFLOW_RUN_ID={job.name}" in log
    assert "MLFLOW_EXPERIMENT_NAME=variables" in log
    assert "AZUREML_ARM_WORKSPACE_NAME=main" in log
    assert "MSI_ENDPOINT=https://" in log


def test_a_job_that_runs_too_long_is_stopped(run: Callable[..., Any]) -> None:
    job = command(command="sleep 600", environment=PLAIN)
    job.set_limits(timeout=2)
    run(job, status="Failed")


def test_a_running_job_is_canceled_and_leaves_no_process(
    ml_client: MLClient, server: ServerProcess, tmp_path: Path
) -> None:
    import psutil

    marker = f"31557{tmp_path.stat().st_ino}"
    submitted = ml_client.jobs.create_or_update(
        command(command=f"setsid sleep {marker} & sleep {marker}", environment=PLAIN)
    )
    with server.client() as client:
        wait_for_job(client, submitted.name, {"Running"})
        ml_client.jobs.begin_cancel(submitted.name).result()
        job = wait_for_job(client, submitted.name)
    assert job["properties"]["status"] == "Canceled"
    left = [p for p in psutil.process_iter(["cmdline"]) if marker in " ".join(p.info["cmdline"] or [])]
    assert left == []
    with pytest.raises(HttpResponseError, match="over"):
        ml_client.jobs.begin_cancel(submitted.name)


SHOW = (
    'python -c "import os; print({k: v for k, v in os.environ.items() '
    "if k.endswith('RANK') or 'WORLD' in k or k.startswith(('MASTER_', 'TF_', 'OMPI_COMM'))})\""
)


@pytest.mark.parametrize(
    ("distribution", "files", "expected"),
    [
        (
            PyTorchDistribution(process_count_per_instance=2),
            [f"user_logs/std_log_process_{i}.txt" for i in range(4)],
            ["'WORLD_SIZE': '4'", "'RANK': '{i}'", "'MASTER_PORT'"],
        ),
        (
            MpiDistribution(process_count_per_instance=1),
            [f"user_logs/std_log_process_{i}.txt" for i in range(2)],
            ["'OMPI_COMM_WORLD_SIZE': '2'", "'OMPI_COMM_WORLD_RANK': '{i}'"],
        ),
        (
            TensorFlowDistribution(worker_count=2),
            [f"user_logs/std_log_worker_{i}.txt" for i in range(2)],
            ["TF_CONFIG", '"index": {i}'],
        ),
    ],
    ids=["pytorch", "mpi", "tensorflow"],
)
def test_several_nodes_know_their_ranks(
    run: Callable[..., Any], server: ServerProcess, distribution: Any, files: list[str], expected: list[str]
) -> None:
    job = run(
        command(
            command=SHOW,
            environment=PLAIN,
            distribution=distribution,
            resources=JobResourceConfiguration(instance_count=2),
        )
    )
    for index, file in enumerate(files):
        log = log_of(server, job.name, file)
        for words in expected:
            assert words.replace("{i}", str(index)) in log


def test_an_input_that_does_not_exist_is_named(run: Callable[..., Any], server: ServerProcess) -> None:
    job = run(
        command(
            command="cat ${{inputs.gone}}",
            inputs={
                "gone": Input(
                    type=AssetTypes.URI_FILE,
                    path="azureml://datastores/workspaceblobstore/paths/not/there.csv",
                )
            },
            environment=PLAIN,
        ),
        status="Failed",
    )
    with server.client() as client:
        details = client.get(f"/history/v1.0{WORKSPACE_PATH}/runs/{job.name}/details").json()
    assert details["error"]["error"]["details"][0]["code"] == "InputNotFound"
    assert "not/there.csv" in details["error"]["error"]["message"]


def test_a_name_is_taken_once(ml_client: MLClient) -> None:
    job = command(name="taken-once", command="echo 1", environment=PLAIN)
    ml_client.jobs.create_or_update(job)
    with pytest.raises(ResourceExistsError, match="already"):
        ml_client.jobs.create_or_update(command(name="taken-once", command="echo 2", environment=PLAIN))


def test_list_update_archive_restore(run: Callable[..., Any], ml_client: MLClient) -> None:
    job = run(command(command="true", environment=PLAIN, display_name="before", experiment_name="listing"))
    job.display_name = "after"
    job.tags = {"k": "v"}
    updated = ml_client.jobs.create_or_update(job)
    assert updated.display_name == "after"
    assert updated.tags["k"] == "v"
    assert job.name in [listed.name for listed in ml_client.jobs.list()]
    ml_client.jobs.archive(job.name)
    assert job.name not in [listed.name for listed in ml_client.jobs.list()]
    ml_client.jobs.restore(job.name)
    assert job.name in [listed.name for listed in ml_client.jobs.list()]
    assert ml_client.jobs.show_services(job.name) is None
