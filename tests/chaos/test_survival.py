"""Jobs survive what kills the processes around them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import WORKSPACE_PATH
from tests.sdk.waiting import describe, wait_for_job
from tests.server import ServerProcess

JOBS = f"{WORKSPACE_PATH}/jobs"
ENVIRONMENT = f"{WORKSPACE_PATH}/environments/plain/versions/1"
COUNTING = "for i in $(seq 1 8); do echo line $i; sleep 0.4; done; echo $AZUREML_RUN_ID > outputs/done.txt"


def submit(client: httpx.Client, name: str, command: str, **fields: object) -> None:
    """Submit a job in an environment that is quickly built."""
    client.put(ENVIRONMENT, json={"properties": {"image": "python:3.11"}}).raise_for_status()
    body = {
        "jobType": "Command",
        "command": f"mkdir -p outputs; {command}",
        "environmentId": ENVIRONMENT,
        **fields,
    }
    client.put(f"{JOBS}/{name}", json={"properties": body}).raise_for_status()


def log_of(client: httpx.Client, name: str) -> str:
    details = client.get(f"/history/v1.0{WORKSPACE_PATH}/runs/{name}/details").json()
    return client.get(details["logFiles"]["user_logs/std_log.txt"], headers={"Authorization": ""}).text


def agents_of(home: Path) -> list[int]:
    """Process ids of the agents of a home's nodes."""
    return [json.loads(file.read_bytes())["pid"] for file in home.glob("nodes/*/agent.pid")]


def expected() -> str:
    return "".join(f"line {number}\n" for number in range(1, 9))


@pytest.mark.slow
def test_a_job_outlives_the_server(new_server: ServerProcess) -> None:
    new_server.start()
    with new_server.client() as client:
        submit(client, "counting", COUNTING)
        wait_for_job(client, "counting", {"Running"})
    new_server.kill()
    time.sleep(1.5)  # the job writes on while nobody listens
    new_server.start()
    with new_server.client() as client:
        job = wait_for_job(client, "counting")
        assert job["properties"]["status"] == "Completed", describe(client, "counting")
        assert log_of(client, "counting") == expected(), "no line lost or repeated"
        assert job["properties"]["properties"]["noriba.attempt"] == "1"


@pytest.mark.slow
def test_a_job_that_ended_while_the_server_was_down_is_completed(new_server: ServerProcess) -> None:
    new_server.start()
    with new_server.client() as client:
        submit(client, "brief", "echo begin; sleep 1; echo end")
        wait_for_job(client, "brief", {"Running"})
    new_server.kill()
    time.sleep(2)  # long enough for the job to end
    new_server.start()
    with new_server.client() as client:
        assert wait_for_job(client, "brief")["properties"]["status"] == "Completed"
        assert log_of(client, "brief") == "begin\nend\n"


@pytest.mark.slow
def test_a_job_outlives_its_agent(new_server: ServerProcess) -> None:
    new_server.start()
    with new_server.client() as client:
        submit(client, "orphan", COUNTING)
        wait_for_job(client, "orphan", {"Running"})
        killed = agents_of(new_server.home.path)
        assert killed, "the node's agent is found"
        for process in killed:
            os.kill(process, signal.SIGKILL)
        job = wait_for_job(client, "orphan")
        assert job["properties"]["status"] == "Completed", describe(client, "orphan")
        assert log_of(client, "orphan") == expected()
        timeline = client.get(f"{JOBS}/orphan/timeline").json()["value"]
        assert "AgentRestarted" in [event["code"] for event in timeline]


@pytest.mark.slow
def test_jobs_queued_when_the_server_is_killed_run_later(new_server: ServerProcess) -> None:
    new_server.environ["NORIBA_ENGINE_MAX_NODES"] = "1"
    new_server.start()
    names = [f"queued-{number}" for number in range(5)]
    with new_server.client() as client:
        for name in names:
            submit(client, name, "sleep 0.5; echo $AZUREML_RUN_ID")
    new_server.kill()
    new_server.start()
    with new_server.client() as client:
        for name in names:
            assert wait_for_job(client, name)["properties"]["status"] == "Completed", describe(client, name)
            assert log_of(client, name) == f"{name}\n"


@pytest.mark.slow
def test_nothing_is_left_when_all_is_stopped(new_server: ServerProcess) -> None:
    new_server.start()
    home = new_server.home.path
    with new_server.client() as client:
        submit(client, "endless", "sleep 987654 & sleep 987654")
        wait_for_job(client, "endless", {"Running"})
    new_server.destroy()
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if str(home) in " ".join(process.info["cmdline"] or [])
        or "987654" in " ".join(process.info["cmdline"] or [])
    ]
    assert left == []
