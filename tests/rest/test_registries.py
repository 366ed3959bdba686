"""Registries over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import SUBSCRIPTION, WORKSPACE_PATH
from tests.rest.users import client_with_roles
from tests.server import ServerProcess

REGISTRY = (
    f"/regrp/mferp/managementfrontend/subscriptions/{SUBSCRIPTION}/resourceGroups/registries"
    "/providers/Microsoft.MachineLearningServices/registries"
)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def test_the_curated_registry_is_discovered(client: httpx.Client) -> None:
    found = client.get(
        "/ty/west.api.ml.azure.com/registrymanagement/v1.0/registries/azureml/discovery"
    ).json()
    base = found["primaryRegionResourceProviderUri"] + "mferp/managementfrontend"
    path = (
        f"{base}/subscriptions/{found['subscriptionId']}/resourceGroups/{found['resourceGroup']}"
        "/providers/Microsoft.MachineLearningServices/registries/azureml/environments"
    )
    assert client.get(path).json()["value"]


def test_curated_environments_are_paged(client: httpx.Client) -> None:
    everything = client.get(f"{REGISTRY}/azureml/environments?count=1000").json()["value"]
    seen = []
    following: str | None = f"{REGISTRY}/azureml/environments?count=4"
    while following:
        page = client.get(following).json()
        seen += page["value"]
        following = page.get("nextLink")
    assert seen == everything


@pytest.mark.parametrize("kind", ["models", "components", "data", "codes"])
def test_there_are_only_environments_in_it(client: httpx.Client, kind: str) -> None:
    assert client.get(f"{REGISTRY}/azureml/{kind}").json() == {"value": []}
    assert client.get(f"{REGISTRY}/azureml/{kind}/x/versions/1").status_code == 404


def test_a_registry_of_ones_own_begins_with_its_first_asset(
    server: ServerProcess, client: httpx.Client
) -> None:
    registry = f"r{uuid.uuid4().hex[:8]}"
    path = f"{REGISTRY}/{registry}/environments/e/versions/1"
    assert client.get(path).status_code == 404
    made = client.put(path, json={"properties": {"image": "python:3.11"}})
    assert made.status_code == 201
    assert made.json()["id"] == f"azureml://registries/{registry}/environments/e/versions/1"
    slot = client.put(
        f"{REGISTRY}/{registry}/tempdatarefs/m/versions/1",
        json={"assetId": f"azureml://registries/{registry}/models/m/versions/1"},
    ).json()["blobReferenceForConsumption"]
    uploaded = client.put(
        slot["credential"]["sasUri"].replace("?", "/m/file?"),
        content=b"x",
        headers={"Authorization": "", "x-ms-blob-type": "BlockBlob"},
    )
    assert uploaded.status_code == 201
    with client_with_roles(server, {"none": "Reader"}) as reader:
        assert reader.get(path).json() == made.json()
        assert reader.put(path, json={"properties": {"image": "python:3.12"}}).status_code == 403
    with client_with_roles(server, {}) as stranger:
        assert stranger.get(path).status_code == 403


def test_registries_are_resources(client: httpx.Client) -> None:
    base = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/any/providers/Microsoft.MachineLearningServices/registries"
    assert client.get(f"{base}/azureml").json()["name"] == "azureml"
    assert "azureml" in [item["name"] for item in client.get(base).json()["value"]]
    missing = client.get(f"{base}/nowhere")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "RegistryNotFound")


def test_sharing_is_checked_on_both_sides(server: ServerProcess, client: httpx.Client) -> None:
    name = f"n{uuid.uuid4().hex[:8]}"
    body = {"properties": {"image": "python:3.11"}}
    client.put(f"{WORKSPACE_PATH}/environments/{name}/versions/1", json=body)
    source = f"{WORKSPACE_PATH}/environments/{name}/versions/1"

    def share(client: httpx.Client, **changed: str) -> httpx.Response:
        asked = {"sourceAssetId": source, "destinationName": name, "destinationVersion": "1", **changed}
        return client.post(f"{REGISTRY}/{name}/import", json={"properties": asked})

    assert share(client).status_code == 202
    assert share(client).status_code == 202
    client.put(f"{WORKSPACE_PATH}/environments/{name}/versions/2", json={"properties": {"image": "other"}})
    assert share(client, sourceAssetId=source.replace("/versions/1", "/versions/2")).status_code == 409
    assert share(client, sourceAssetId=source + "0").status_code == 404
    assert share(client, sourceAssetId=source.replace("environments", "components")).status_code == 400
    assert share(client, sourceAssetId="azureml:x:1").status_code == 400
    assert share(client, destinationName="no good").status_code == 400
    assert share(client, destinationVersion="").status_code == 400
    with client_with_roles(server, {"another": "Owner"}) as elsewhere:
        assert share(elsewhere).status_code == 403
    with client_with_roles(server, {"*": "Reader"}) as reader:
        assert share(reader).status_code == 403


def test_files_of_a_registry_are_opened_through_it_only(server: ServerProcess, client: httpx.Client) -> None:
    registry = f"r{uuid.uuid4().hex[:8]}"
    for number, name in enumerate((registry, f"{registry}x")):
        path = f"{REGISTRY}/{name}/environments/e/versions/1"
        assert client.put(path, json={"properties": {"image": str(number)}}).status_code == 201
    asset = f"azureml://registries/{registry}/models/m/versions/1"
    slot = client.put(f"{REGISTRY}/{registry}/tempdatarefs/m/versions/1", json={"assetId": asset}).json()
    address = slot["blobReferenceForConsumption"]["blobUri"]

    def open_files(registry: str, address: str) -> int:
        path = f"{REGISTRY}/{registry}/datarefs/m/versions/1"
        return client.post(path, json={"assetId": asset, "blobUri": address}).status_code

    assert open_files(registry, f"{address}/m") == 200
    assert open_files(f"{registry}x", f"{address}/m") == 404
    assert open_files(registry, "https://example.com/m") == 400
