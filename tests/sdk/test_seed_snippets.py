"""The public documentation's snippets for serverless command jobs, unmodified but for their placeholders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE, WORKSPACE_PATH
from tests.sdk.waiting import wait_for_job
from tests.server import ServerProcess

SNIPPETS = Path(__file__).parent / "snippets"
PLACEHOLDERS = {
    "<Azure subscription id>": SUBSCRIPTION,
    "<Azure resource group>": RESOURCE_GROUP,
    "<Azure Machine Learning Workspace>": WORKSPACE,
}
pytestmark = pytest.mark.sdk


def submit(snippet: str, server: ServerProcess, folder: Path) -> dict[str, Any]:
    """Run a snippet as its reader would, and return the job it made when that is over."""
    text = (SNIPPETS / f"{snippet}.py").read_text()
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    # The experiment is named after the current folder, by which the job is found.
    folder = folder / f"snippet_{snippet}"
    folder.mkdir()
    (folder / "snippet.py").write_text(text)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "snippet.py"],
        cwd=folder,
        env={**os.environ, **server.client_environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    with server.client() as client:
        listed = client.get(f"{WORKSPACE_PATH}/jobs", params={"experimentName": folder.name}).json()["value"]
        (job,) = listed
        return wait_for_job(client, job["name"])


@pytest.mark.parametrize(
    "snippet", ["defaults", "user_identity", "managed_identity", "instance_type", "spot", "all_fields"]
)
def test_a_snippet_runs_to_its_end(snippet: str, server: ServerProcess, tmp_path: Path) -> None:
    job = submit(snippet, server, tmp_path)
    properties = job["properties"]
    assert properties["status"] == "Completed", job
    told = properties["properties"]
    expected = {
        "instance_type": ("Standard_NC24", "4", "Standard"),
        "spot": (told["noriba.instance_type"], "1", "Spot"),
        "all_fields": ("Standard_E4s_v3", "1", "Standard"),
    }.get(snippet, (told["noriba.instance_type"], "1", "Standard"))
    assert (told["noriba.instance_type"], told["noriba.instance_count"], told["noriba.tier"]) == expected
    with server.client() as client:
        details = client.get(f"/history/v1.0{WORKSPACE_PATH}/runs/{job['name']}/details").json()
        file = "std_log.txt" if told["noriba.instance_count"] == "1" else "std_log_process_0.txt"
        log = client.get(details["logFiles"][f"user_logs/{file}"], headers={"Authorization": ""})
    assert "hello world" in log.text
