"""What clients ask first."""

from __future__ import annotations

import httpx

from tests.conftest import WORKSPACE_PATH
from tests.server import ServerProcess


def test_ready_and_metrics(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, verify=server.tls()) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        assert "noriba_requests_total" in client.get("/metrics").text


def test_no_token_is_401_with_the_envelope(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, verify=server.tls()) as client:
        answer = client.get(WORKSPACE_PATH.upper().replace("/PROVIDERS", "/providers") + "/jobs")
    assert answer.status_code in (401, 404)
    assert answer.json()["error"]["code"]


def test_a_wrong_secret_is_told(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, verify=server.tls()) as client:
        answer = client.get("/msi/token", params={"resource": "x"}, headers={"secret": "wrong"})
    assert answer.status_code == 400
    assert "noriba env" in answer.json()["error_description"]
