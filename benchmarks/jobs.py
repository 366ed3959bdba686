"""How soon a job starts on a warm node, and how many trivial ones a second get through the REST API.

    PYTHONPATH=. .venv/bin/python benchmarks/jobs.py [--rounds 20] [--jobs 200]

Side by side in one run: the same command started by ``subprocess`` with nothing recorded, which is the floor. A job
here is durable before it is acknowledged, and has its log, its timeline and its MLflow run when it is over.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from tests.conftest import WORKSPACE_PATH
from tests.server import ServerProcess

JOBS = f"{WORKSPACE_PATH}/jobs"
ENVIRONMENT = f"{WORKSPACE_PATH}/environments/plain/versions/1"
OVER = {"Completed", "Failed", "Canceled"}


def submit(client: httpx.Client, name: str, command: str) -> None:
    body = {"jobType": "Command", "command": command, "environmentId": ENVIRONMENT}
    client.put(f"{JOBS}/{name}", json={"properties": body}).raise_for_status()


def wait(client: httpx.Client, name: str) -> None:
    while True:
        status = client.get(f"{JOBS}/{name}").json()["properties"]["status"]
        if status in OVER:
            assert status == "Completed", status
            return
        time.sleep(0.005)


def started(marker: Path) -> str:
    return f"date +%s.%N > {marker}"


def latencies(client: httpx.Client, folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds from the call to the first instruction: of jobs, and of bare processes."""
    jobs, bare = [], []
    for number in range(rounds):
        marker = folder / f"job-{number}"
        begun = time.time()
        submit(client, f"latency-{number}", started(marker))
        wait(client, f"latency-{number}")
        jobs.append(float(marker.read_text()) - begun)
        marker = folder / f"bare-{number}"
        begun = time.time()
        subprocess.run(["bash", "-c", started(marker)], check=True)
        bare.append(float(marker.read_text()) - begun)
    return jobs, bare


def throughput(client: httpx.Client, count: int) -> float:
    """Jobs a second, from the first submission to the last end."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: submit(client, f"many-{number}", "true"), range(count)))
    for number in range(count):
        wait(client, f"many-{number}")
    return count / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = ServerProcess(folder / "home")
        server.start()
        try:
            with server.client() as client:
                client.put(ENVIRONMENT, json={"properties": {"image": "python:3.11"}}).raise_for_status()
                submit(client, "warm", "true")
                wait(client, "warm")
                jobs, bare = latencies(client, folder, arguments.rounds)
                job_ms, bare_ms = statistics.median(jobs) * 1000, statistics.median(bare) * 1000
                print(
                    f"submit -> process runs, warm node   {job_ms:6.1f} ms  "
                    f"({min(jobs) * 1000:.1f}-{max(jobs) * 1000:.1f})"
                )
                print(
                    f"bare subprocess                     {bare_ms:6.1f} ms  "
                    f"({min(bare) * 1000:.1f}-{max(bare) * 1000:.1f})  difference {job_ms - bare_ms:.1f} ms"
                )
                rate = throughput(client, arguments.jobs)
                print(f"{arguments.jobs} trivial jobs, submitted to over    {rate:6.1f} jobs/s")
        finally:
            server.destroy()


if __name__ == "__main__":
    main()
