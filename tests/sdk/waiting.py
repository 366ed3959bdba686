"""Wait for jobs."""

from __future__ import annotations

import time
from typing import Any

import httpx

from tests.conftest import WORKSPACE_PATH

TERMINAL = {"Completed", "Failed", "Canceled"}


def get_job(client: httpx.Client, name: str) -> dict[str, Any]:
    """The job's document."""
    answer = client.get(f"{WORKSPACE_PATH}/jobs/{name}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def wait_for_job(
    client: httpx.Client, name: str, statuses: set[str] = TERMINAL, timeout_s: float = 240
) -> dict[str, Any]:
    """The job's document once it is in one of ``statuses``."""
    deadline = time.monotonic() + timeout_s
    while True:
        job = get_job(client, name)
        status = job["properties"]["status"]
        if status in statuses:
            return job
        assert status not in TERMINAL, f"{name} ended as {status}: {describe(client, name)}"
        assert time.monotonic() < deadline, f"{name} is still {status}: {describe(client, name)}"
        time.sleep(0.1)


def describe(client: httpx.Client, name: str) -> str:
    """All that the server tells about a job, for a failed test's message."""
    parts = [client.get(f"{WORKSPACE_PATH}/jobs/{name}/timeline").text]
    details = client.get(f"/history/v1.0{WORKSPACE_PATH}/runs/{name}/details").json()
    for file, url in details.get("logFiles", {}).items():
        parts.append(f"--- {file}\n{client.get(url, headers={'Authorization': ''}).text}")
    return "\n".join(parts)
