"""Datastores over HTTP: secrets, roles, signatures, the default one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import WORKSPACE_PATH
from tests.rest.users import client_with_roles, workspace_id
from tests.server import ServerProcess

STORES = f"{WORKSPACE_PATH}/datastores"


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"n{uuid.uuid4().hex[:12]}"


def body(**values: Any) -> dict[str, Any]:
    return {
        "properties": {
            "datastoreType": "AzureBlob",
            "accountName": "acct",
            "containerName": "c",
            "credentials": {
                "credentialsType": "AccountKey",
                "secrets": {"secretsType": "AccountKey", "key": "c2VjcmV0"},
            },
            **values,
        }
    }


def test_secrets_are_kept_apart(server: ServerProcess, client: httpx.Client, name: str) -> None:
    made = client.put(f"{STORES}/{name}", json=body(future={"a": 1}))
    assert made.status_code == 201
    assert "c2VjcmV0" not in made.text
    document = client.get(f"{STORES}/{name}").json()
    assert document == made.json()
    assert document["properties"]["credentials"] == {"credentialsType": "AccountKey"}
    assert document["properties"]["future"] == {"a": 1}
    secrets = client.post(f"{STORES}/{name}/listSecrets").json()
    assert secrets == {"secretsType": "AccountKey", "key": "c2VjcmV0"}
    # Sending the document back, without secrets, keeps them; other credentials do not.
    assert client.put(f"{STORES}/{name}", json=document).status_code == 200
    assert client.post(f"{STORES}/{name}/listSecrets").json() == secrets
    client.put(f"{STORES}/{name}", json=body(credentials={"credentialsType": "None"}))
    assert client.post(f"{STORES}/{name}/listSecrets").status_code == 400
    # Nothing on disk shows the secret.
    client.put(f"{STORES}/{name}", json=body())
    for file in server.home.path.glob("noriba.db*"):
        assert b"c2VjcmV0" not in file.read_bytes()
    assert client.delete(f"{STORES}/{name}").status_code == 204
    assert client.delete(f"{STORES}/{name}").status_code == 204


def test_the_default_changes_and_there_is_always_one(client: httpx.Client, name: str) -> None:
    def defaults() -> list[str]:
        return [item["name"] for item in client.get(f"{STORES}?isDefault=true").json()["value"]]

    assert defaults() == ["workspaceblobstore"]
    client.put(f"{STORES}/{name}", json=body(isDefault=True))
    try:
        assert defaults() == [name]
        assert client.delete(f"{STORES}/{name}").status_code == 409
    finally:
        built_in = client.get(f"{STORES}/workspaceblobstore").json()
        built_in["properties"]["isDefault"] = True
        assert client.put(f"{STORES}/workspaceblobstore", json=built_in).status_code == 200
    assert defaults() == ["workspaceblobstore"]
    assert client.delete(f"{STORES}/{name}").status_code == 204


def test_lists_are_paged(client: httpx.Client) -> None:
    seen: list[str] = []
    following: str | None = f"{STORES}?count=1"
    while following:
        page = client.get(following).json()
        assert len(page["value"]) == 1
        seen += [item["name"] for item in page["value"]]
        following = page.get("nextLink")
    assert {"workspaceartifactstore", "workspaceblobstore", "workspacefilestore"} <= set(seen)
    assert seen == sorted(set(seen))


def signature_of(client: httpx.Client, store: str, **asked: Any) -> str:
    answer = client.post(f"{STORES}/{store}/listSecrets", json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["secretsType"] == "Sas"
    return str(answer.json()["sasToken"])


def test_signatures_open_their_container_with_the_callers_rights(
    server: ServerProcess, client: httpx.Client, name: str
) -> None:
    account = client.get(f"{STORES}/workspaceartifactstore").json()["properties"]["accountName"]
    blobs = f"https://{account}.blob.local"
    headers = {"Authorization": "", "x-ms-blob-type": "BlockBlob"}

    def put(container: str, signature: str) -> int:
        url = f"{blobs}/{container}/{name}?{signature}"
        return client.put(url, content=b"x", headers=headers).status_code

    mine = signature_of(client, "workspaceartifactstore", expirableSecret=True, expireAfterHours=1)
    assert put("azureml", mine) == 201
    assert put("azureml-blobstore", mine) == 403
    assert put("azureml-blobstore", signature_of(client, "workspaceblobstore")) == 201
    with client_with_roles(server, {workspace_id(client, WORKSPACE_PATH): "Reader"}) as reader:
        for store, container in (
            ("workspaceblobstore", "azureml-blobstore"),
            ("workspaceartifactstore", "azureml"),
        ):
            reads = signature_of(reader, store)
            assert put(container, reads) == 403
            found = client.get(f"{blobs}/{container}/{name}?{reads}", headers={"Authorization": ""})
            assert (found.status_code, found.content) == (200, b"x")


def test_secrets_are_for_those_who_may_write(server: ServerProcess, client: httpx.Client, name: str) -> None:
    client.put(f"{STORES}/{name}", json=body())
    workspace = workspace_id(client, WORKSPACE_PATH)
    with client_with_roles(server, {workspace: "Reader"}) as reader:
        assert reader.get(f"{STORES}/{name}").status_code == 200
        assert reader.post(f"{STORES}/{name}/listSecrets").status_code == 403
        assert reader.put(f"{STORES}/{name}", json=body()).status_code == 403
        assert reader.delete(f"{STORES}/{name}").status_code == 403
    with client_with_roles(server, {workspace: "Contributor"}) as contributor:
        assert contributor.post(f"{STORES}/{name}/listSecrets").status_code == 200


def test_nobody_points_a_datastore_at_a_workspace_of_others(
    server: ServerProcess, client: httpx.Client, name: str
) -> None:
    other = WORKSPACE_PATH.replace("/workspaces/main", f"/workspaces/{name}")
    client.put(other, json={})
    account = client.get(f"{other}/datastores/workspaceblobstore").json()["properties"]["accountName"]
    request = body(accountName=account, containerName="azureml", credentials={"credentialsType": "None"})
    with client_with_roles(server, {workspace_id(client, WORKSPACE_PATH): "Owner"}) as stranger:
        answer = stranger.put(f"{STORES}/{name}", json=request)
        assert answer.status_code == 403
    assert client.delete(other).status_code == 202


@pytest.mark.parametrize(
    ("values", "target"),
    [
        ({"datastoreType": "Floppy"}, "properties.datastoreType"),
        ({"accountName": None}, "properties.accountName"),
        ({"containerName": ""}, "properties.containerName"),
        ({"datastoreType": "AzureFile"}, "properties.fileShareName"),
        ({"credentials": "x"}, "properties.credentials"),
        ({"accountName": "somehost:1/blob/ws0000"}, "properties.accountName"),
    ],
)
def test_bad_datastores_are_refused(
    client: httpx.Client, name: str, values: dict[str, Any], target: str
) -> None:
    answer = client.put(f"{STORES}/{name}", json=body(**values))
    assert answer.status_code == 400
    assert answer.json()["error"]["target"] == target


@pytest.mark.parametrize("hours", [-1, "1", True])
def test_bad_lifetimes_are_refused(client: httpx.Client, hours: Any) -> None:
    answer = client.post(f"{STORES}/workspaceblobstore/listSecrets", json={"expireAfterHours": hours})
    assert answer.status_code == 400
