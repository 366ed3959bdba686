"""Computes and sizes over HTTP."""

from __future__ import annotations

from noriba.catalog import instance_types
from tests.conftest import SUBSCRIPTION, WORKSPACE_PATH
from tests.server import ServerProcess


def test_there_are_no_clusters(server: ServerProcess) -> None:
    with server.client() as client:
        assert client.get(f"{WORKSPACE_PATH}/computes").json() == {"value": []}
        answer = client.get(f"{WORKSPACE_PATH}/computes/cpu-cluster")
    assert answer.status_code == 404
    assert "serverless" in answer.json()["error"]["message"]


def test_sizes_are_those_of_the_catalogue(server: ServerProcess) -> None:
    path = (
        f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.MachineLearningServices/locations/local/vmSizes"
    )
    with server.client() as client:
        answer = client.get(path).json()
    assert answer["value"] == answer["amlCompute"]
    assert len(answer["value"]) == len(instance_types())
    size = next(item for item in answer["value"] if item["name"] == "Standard_NC24")
    assert (size["vCPUs"], size["gpus"], size["memoryGB"]) == (24, 4, 224)
    assert size["estimatedVMPrices"]["values"][0]["retailPrice"] == 3.6
