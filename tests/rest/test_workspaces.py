"""Workspaces over HTTP: life, roles, and what goes with them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from noriba.database import Database
from noriba.database.types import metadata
from tests.conftest import WORKSPACE_PATH
from tests.rest.users import client_with_roles, workspace_id
from tests.server import ServerProcess

GROUP = WORKSPACE_PATH.rpartition("/")[0]


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def path() -> str:
    return f"{GROUP}/n{uuid.uuid4().hex[:12]}"


def test_a_workspace_from_birth_to_death(client: httpx.Client, path: str) -> None:
    made = client.put(
        path,
        json={
            "location": "here",
            "tags": {"a": "b"},
            "properties": {
                "friendlyName": "F",
                "description": "d",
                "future": {"x": 1},
                "workspaceId": "mine",
            },
        },
    )
    assert made.status_code == 201
    document = made.json()
    assert (document["id"], document["location"], document["tags"]) == (path, "here", {"a": "b"})
    assert document["properties"]["future"] == {"x": 1}
    assert document["properties"]["provisioningState"] == "Succeeded"
    assert uuid.UUID(document["properties"]["workspaceId"])
    status = client.get(made.headers["Azure-AsyncOperation"])
    assert status.json()["status"] == "Succeeded"
    assert client.get(made.headers["Location"]).status_code == 204
    assert client.get(path).json() == document
    again = client.put(path, json={"location": "here", "properties": {"friendlyName": "G"}})
    assert again.status_code == 200
    assert again.json()["properties"]["workspaceId"] == document["properties"]["workspaceId"]
    changed = client.patch(path, json={"tags": {"c": "d"}, "properties": {"description": "new"}}).json()
    assert (changed["tags"], changed["properties"]["friendlyName"]) == ({"c": "d"}, "G")
    assert changed["properties"]["description"] == "new"
    gone = client.delete(path)
    assert gone.status_code == 202
    assert gone.headers["Retry-After"] == "1"
    assert client.get(gone.headers["Azure-AsyncOperation"]).json()["status"] == "Succeeded"
    assert client.get(path).status_code == 404


def test_nothing_of_a_deleted_workspace_stays(server: ServerProcess, client: httpx.Client, path: str) -> None:
    client.put(path, json={})
    identity = workspace_id(client, path)
    account = client.get(f"{path}/datastores/workspaceblobstore").json()["properties"]["accountName"]
    signature = client.post(f"{path}/datastores/workspaceblobstore/listSecrets").json()["sasToken"]
    blob = f"https://{account}.blob.local/azureml-blobstore/x?{signature}"
    headers = {"Authorization": "", "x-ms-blob-type": "BlockBlob"}
    assert client.put(blob, content=b"x", headers=headers).status_code == 201
    body = {"properties": {"image": "x"}}
    assert client.put(f"{path}/environments/e/versions/1", json=body).status_code == 201
    assert client.post(f"{path}/codes/c/versions/1/startPendingUpload", json={}).status_code == 200
    assert client.delete(path).status_code == 202
    assert client.get(blob, headers={"Authorization": ""}).status_code in (403, 404)
    database = Database(server.info.database, readers=1)

    def rows(connection: sa.Connection) -> dict[str, int]:
        found = {}
        for table in metadata.sorted_tables:
            for column in ("workspace_id", "scope", "account"):
                value = account.rpartition("/")[2] if column == "account" else identity
                if column in table.c and table.name not in ("operations", "nodes"):
                    statement = sa.select(sa.func.count()).select_from(table).where(table.c[column] == value)
                    if count := connection.execute(statement).scalar_one():
                        found[table.name] = count
        return found

    try:
        assert database.read_now(rows) == {}
    finally:
        database.close()
    # A new one of that name is another.
    client.put(path, json={})
    assert workspace_id(client, path) != identity
    assert client.get(f"{path}/environments/e/versions/1").status_code == 404
    client.delete(path)


def test_a_workspace_with_jobs_that_are_not_over_stays(client: httpx.Client, path: str) -> None:
    client.put(path, json={})
    job = f"{path}/jobs/j1"
    body = {
        "properties": {
            "jobType": "Command",
            "command": "sleep 600",
            "environmentId": "azureml://registries/azureml/environments/sklearn-1.5/labels/latest",
        }
    }
    assert client.put(job, json=body).status_code in (200, 201)
    refused = client.delete(path)
    assert refused.status_code == 409
    assert "j1" in refused.json()["error"]["message"]
    following = client.post(f"{job}/cancel")
    while following.status_code == 202:
        following = client.get(following.headers["Location"])
    while client.get(job).json()["properties"]["status"] not in ("Canceled", "Failed"):
        client.get(f"{job}")
    assert client.delete(path).status_code == 202


def test_creating_is_for_owners_of_everything(server: ServerProcess, client: httpx.Client, path: str) -> None:
    first = workspace_id(client, WORKSPACE_PATH)
    with client_with_roles(server, {first: "Owner"}) as owner:
        assert owner.put(path, json={}).status_code == 403
        listed = owner.get(GROUP).json()["value"]
        assert [item["id"] for item in listed] == [WORKSPACE_PATH]
        assert owner.patch(WORKSPACE_PATH, json={"tags": {}}).status_code == 200
    client.put(path, json={})
    with client_with_roles(server, {first: "Owner", workspace_id(client, path): "Contributor"}) as member:
        assert member.get(path).status_code == 200
        assert {WORKSPACE_PATH, path} == {item["id"] for item in member.get(GROUP).json()["value"]}
        for answer in (member.put(path, json={}), member.patch(path, json={}), member.delete(path)):
            assert answer.status_code == 403
    with client_with_roles(server, {}) as stranger:
        assert stranger.get(GROUP).json() == {"value": []}
        assert stranger.get(path).status_code == 403
        assert stranger.get(f"{GROUP}/nothing").status_code == 403
    client.delete(path)


@pytest.mark.parametrize("name", ["ab", "-abc", "a" * 34, "with space", "ünïcode"])
def test_bad_names_are_refused(client: httpx.Client, name: str) -> None:
    answer = client.put(f"{GROUP}/{name}", json={})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "InvalidName"


def test_paths_are_matched_in_any_case(client: httpx.Client) -> None:
    path = WORKSPACE_PATH.replace("resourceGroups", "resourcegroups").replace("/main", "/MAIN")
    assert client.get(path).json()["id"] == WORKSPACE_PATH
