"""Whose tokens a job gets, and for how long (product.md R12, R13)."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import jwt
import pytest

from tests.conftest import WORKSPACE_PATH
from tests.sdk.waiting import describe, wait_for_job
from tests.server import ServerProcess

pytestmark = pytest.mark.sdk
JOBS = f"{WORKSPACE_PATH}/jobs"
ENVIRONMENT = f"{WORKSPACE_PATH}/environments/plain/versions/1"

PRINT_TOKENS = """
import json, os, urllib.request
def get(url, **headers):
    return json.load(urllib.request.urlopen(urllib.request.Request(url, headers=headers)))["access_token"]
resource = "resource=https://storage.azure.com"
print(json.dumps({
    "msi": get(os.environ["MSI_ENDPOINT"] + "?" + resource, secret=os.environ["MSI_SECRET"]),
    "obo": get(os.environ["OBO_ENDPOINT"] + "?" + resource),
    "secret": os.environ["MSI_SECRET"], "obo_endpoint": os.environ["OBO_ENDPOINT"],
    "token": os.environ["AZUREML_RUN_TOKEN"],
    "client_id": os.environ.get("DEFAULT_IDENTITY_CLIENT_ID"),
}))
"""


def run(client: httpx.Client, name: str, identity: str) -> dict[str, str]:
    """What a job with that identity could get."""
    client.put(ENVIRONMENT, json={"properties": {"image": "python:3.11"}}).raise_for_status()
    body = {
        "jobType": "Command",
        "command": 'python -c "$SCRIPT"',
        "environmentId": ENVIRONMENT,
        "environmentVariables": {"SCRIPT": PRINT_TOKENS},
        "identity": {"identityType": identity},
    }
    client.put(f"{JOBS}/{name}", json={"properties": body}).raise_for_status()
    job = wait_for_job(client, name)
    assert job["properties"]["status"] == "Completed", describe(client, name)
    details = client.get(f"/history/v1.0{WORKSPACE_PATH}/runs/{name}/details").json()
    log = client.get(details["logFiles"]["user_logs/std_log.txt"], headers={"Authorization": ""}).text
    found: dict[str, str] = json.loads(log)
    return found


def claims(token: str) -> dict[str, str]:
    found: dict[str, str] = jwt.decode(token, options={"verify_signature": False})
    return found


def test_a_job_acts_as_its_user_or_as_the_workspace(server: ServerProcess, tmp_path: Path) -> None:
    with server.client() as client:
        me = claims(client.headers["Authorization"].partition(" ")[2])["oid"]
        as_user = run(client, "identity-user", "UserIdentity")
        assert claims(as_user["msi"])["oid"] == me
        assert claims(as_user["obo"])["oid"] == me
        managed = run(client, "identity-managed", "Managed")
        assert claims(managed["msi"])["oid"] != me
        assert claims(managed["msi"])["idtyp"] == "app"
        assert claims(managed["obo"])["oid"] == me
        assert managed["client_id"]
        assert claims(managed["msi"])["aud"] == "https://storage.azure.com"


def test_what_a_job_was_given_is_worthless_after_it(server: ServerProcess) -> None:
    with server.client() as client:
        given = run(client, "identity-over", "UserIdentity")
        for token in (given["token"], given["msi"], given["obo"]):
            answer = client.get(JOBS, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "JobTokenExpired"
        assert client.get("/msi/token?resource=x", headers={"secret": given["secret"]}).status_code == 400
        assert client.get(f"{given['obo_endpoint']}?resource=x").status_code == 400
