"""Assets over HTTP: what the SDK does not show."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.conftest import WORKSPACE_PATH
from tests.rest.users import client_with_roles, workspace_id
from tests.server import ServerProcess

KINDS = ("codes", "environments", "data", "models", "components")


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"n{uuid.uuid4().hex[:12]}"


def properties(kind: str, content: str = "x") -> dict[str, Any]:
    """The least that a version of a kind says."""
    at = f"azureml://datastores/workspaceblobstore/paths/{content}"
    return {
        "codes": {"codeUri": at},
        "environments": {"image": content},
        "data": {"dataType": "uri_file", "dataUri": at},
        "models": {"modelUri": at},
        "components": {"componentSpec": {"type": "command", "command": content}},
    }[kind]


def put(client: httpx.Client, kind: str, name: str, version: str = "1", **values: Any) -> httpx.Response:
    content = values.pop("content", "x")
    body = {"properties": {**properties(kind, content), **values}}
    return client.put(f"{WORKSPACE_PATH}/{kind}/{name}/versions/{version}", json=body)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_from_birth_to_death(client: httpx.Client, kind: str, name: str) -> None:
    path = f"{WORKSPACE_PATH}/{kind}/{name}"
    assert client.get(path).status_code == 404
    made = put(client, kind, name, future={"field": [1]}, tags={"a": "b"})
    assert made.status_code == 201, made.text
    document = made.json()
    assert document["id"] == f"{path}/versions/1"
    assert document["name"] == "1"
    assert document["type"] == f"Microsoft.MachineLearningServices/workspaces/{kind}/versions"
    assert document["properties"]["future"] == {"field": [1]}
    assert document["systemData"]["createdAt"].endswith("Z")
    assert document["systemData"]["createdBy"]
    again = put(client, kind, name, future={"field": [1]}, tags={"a": "b"})
    assert (again.status_code, again.json()) == (200, document)
    assert client.get(f"{path}/versions/1").json() == document
    assert client.get(f"{path}/labels/latest").json() == document
    assert client.get(f"{path}/versions/azureml_default").json() == document
    assert client.get(f"{WORKSPACE_PATH}/{kind}/azureml:{name}/versions/1").json() == document
    assert client.get(f"{path}/versions").json() == {"value": [document]}
    container = client.get(path).json()
    assert container["id"] == path
    assert container["properties"]["latestVersion"] == "1"
    assert container["properties"]["nextVersion"] == "2"
    assert put(client, kind, name, content="y").status_code == 409
    assert client.delete(f"{path}/versions/1").status_code == 204
    assert client.delete(f"{path}/versions/1").status_code == 204
    assert client.get(f"{path}/versions/1").status_code == 404
    assert error_of(client.get(path))["code"] == "AssetNotFound"


def test_what_kinds_need_in_their_answers(client: httpx.Client, name: str) -> None:
    assert put(client, "models", name).json()["properties"]["flavors"] == {}
    spec = put(client, "components", name, "3").json()["properties"]["componentSpec"]
    assert (spec["name"], spec["version"]) == (name, "3")
    anonymous = client.put(
        f"{WORKSPACE_PATH}/components/azureml_anonymous/versions/{uuid.uuid4()}",
        json={
            "properties": {
                "isAnonymous": True,
                "componentSpec": {"type": "command", "name": "mine", "version": "9"},
            }
        },
    ).json()["properties"]["componentSpec"]
    assert (anonymous["name"], anonymous["version"]) == ("mine", "9")
    put(client, "data", name)
    assert client.get(f"{WORKSPACE_PATH}/data/{name}").json()["properties"]["dataType"] == "uri_file"


def test_lists_are_paged_and_new_items_do_not_disturb_them(client: httpx.Client, name: str) -> None:
    for version in range(1, 8):
        put(client, "environments", name, str(version))
    path = f"{WORKSPACE_PATH}/environments/{name}/versions?api-version=2023-04-01-preview&count=3"
    seen: list[str] = []
    following: str | None = path
    while following:
        page = client.get(following).json()
        seen += [item["name"] for item in page["value"]]
        following = page.get("nextLink")
        assert following is None or following.startswith("https://")
        assert following is None or "api-version=2023-04-01-preview" in following
        if len(seen) == 3:
            put(client, "environments", name, "8")
    assert seen == ["7", "6", "5", "4", "3", "2", "1"]


@pytest.mark.parametrize(
    ("query", "versions"),
    [
        ("", ["3", "2", "1"]),
        ("$orderBy=createdtime desc&$top=1", ["3"]),
        ("$orderBy=createdtime asc&$top=2", ["1", "2"]),
        ("$orderBy=modifiedtime desc", ["1", "3", "2"]),
        ("tags=team=a", ["2", "1"]),
        ("tags=team=a&count=1", ["2"]),
        ("tags=team", ["3", "2", "1"]),
        ("tags=team=a,more", ["2"]),
        ("stage=Production", ["3"]),
        ("version=2", ["2"]),
        ("listViewType=ArchivedOnly", []),
        ("listViewType=ListViewType.ACTIVE_ONLY", ["3", "2", "1"]),
    ],
)
def test_lists_are_filtered_and_ordered(client: httpx.Client, query: str, versions: list[str]) -> None:
    name = f"filtered{uuid.uuid4().hex[:8]}"
    put(client, "models", name, "1", tags={"team": "a"})
    put(client, "models", name, "2", tags={"team": "a", "more": ""})
    put(client, "models", name, "3", tags={"team": "b"}, stage="Production")
    put(client, "models", name, "1", tags={"team": "a"}, description="changed")
    page = client.get(f"{WORKSPACE_PATH}/models/{name}/versions?{query}").json()
    assert [item["name"] for item in page["value"]] == versions
    assert ("nextLink" in page) == ("count=1" in query)


def test_pages_by_tag_go_on_where_they_stopped(client: httpx.Client, name: str) -> None:
    for version in range(1, 7):
        put(client, "models", name, str(version), tags={"even": str(version % 2 == 0)})
    page = client.get(f"{WORKSPACE_PATH}/models/{name}/versions?tags=even=True&count=2").json()
    assert [item["name"] for item in page["value"]] == ["6", "4"]
    page = client.get(page["nextLink"]).json()
    assert [item["name"] for item in page["value"]] == ["2"]
    assert "nextLink" not in page


def test_names_are_paged(client: httpx.Client) -> None:
    prefix = f"paged{uuid.uuid4().hex[:8]}"
    for number in range(5):
        put(client, "components", f"{prefix}-{number}")
    seen: list[str] = []
    following: str | None = f"{WORKSPACE_PATH}/components?count=2"
    while following:
        page = client.get(following).json()
        assert len(page["value"]) <= 2
        seen += [item["name"] for item in page["value"]]
        following = page.get("nextLink")
    assert [name for name in seen if name.startswith(prefix)] == [f"{prefix}-{n}" for n in range(5)]
    assert max(Counter(seen).values()) == 1


@pytest.mark.parametrize(
    "query", ["$top=0", "$top=x", "count=-1", "$skip=junk", "$orderBy=size", "listViewType=Some"]
)
def test_bad_queries_are_refused(client: httpx.Client, name: str, query: str) -> None:
    answer = client.get(f"{WORKSPACE_PATH}/models/{name}/versions?{query}")
    assert answer.status_code == 400
    assert error_of(answer)["target"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"properties":1}', b'{"properties":{"dataUri":3}}', b"\xff"])
def test_bad_bodies_are_refused(client: httpx.Client, name: str, body: bytes) -> None:
    answer = client.put(f"{WORKSPACE_PATH}/data/{name}/versions/1", content=body)
    assert answer.status_code == 400
    assert error_of(answer)["message"]


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("file:///etc/passwd", 400),
        ("./local", 400),
        ("azureml:none:1", 404),
        ("azureml://jobs/j/outputs/o", 404),
    ],
)
def test_data_that_leads_nowhere_is_refused(client: httpx.Client, name: str, uri: str, status: int) -> None:
    answer = put(client, "data", name, dataUri=uri)
    assert answer.status_code == status
    assert uri in error_of(answer)["message"]
    assert client.get(f"{WORKSPACE_PATH}/data/{name}").status_code == 404


def test_one_of_many_writers_wins(server: ServerProcess, name: str) -> None:
    def create(number: int) -> int:
        with server.client() as client:
            return put(client, "environments", name, content=f"image:{number}").status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(create, range(8)))
    assert statuses == {201: 1, 409: 7}


def test_codes_are_found_by_content_under_any_name(client: httpx.Client, name: str) -> None:
    digest = uuid.uuid4().hex
    put(client, "codes", name, properties={"hash_sha256": digest, "hash_version": 202208})
    query = f"{WORKSPACE_PATH}/codes/{uuid.uuid4()}/versions?hash={digest}&hashVersion=202208"
    assert [item["id"] for item in client.get(query).json()["value"]] == [
        f"{WORKSPACE_PATH}/codes/{name}/versions/1"
    ]
    assert client.get(query.replace(digest, "0" * 32)).json() == {"value": []}


def test_uploads_have_a_place_of_their_own(client: httpx.Client, name: str) -> None:
    def start(version: str) -> dict[str, Any]:
        path = f"{WORKSPACE_PATH}/codes/{name}/versions/{version}/startPendingUpload"
        answer: dict[str, Any] = client.post(
            path, json={"pendingUploadType": "TemporaryBlobReference"}
        ).json()
        return answer

    first, again, second = start("1"), start("1"), start("2")
    assert first["pendingUploadId"] == again["pendingUploadId"]
    assert first["pendingUploadId"] != second["pendingUploadId"]
    place = first["blobReferenceForConsumption"]
    address, _, signature = place["credential"]["sasUri"].partition("?")
    assert place["blobUri"] == address
    blob = f"{address}/src/main.py?{signature}"
    headers = {"Authorization": "", "x-ms-blob-type": "BlockBlob"}
    assert client.put(blob, content=b"print()", headers=headers).status_code == 201
    elsewhere = second["blobReferenceForConsumption"]["blobUri"]
    answer = client.put(f"{elsewhere}/src/main.py?{signature}", content=b"", headers=headers)
    assert answer.status_code == 403


@pytest.mark.parametrize("kind", KINDS)
def test_readers_read_and_strangers_do_not(
    server: ServerProcess, client: httpx.Client, kind: str, name: str
) -> None:
    put(client, kind, name)
    path = f"{WORKSPACE_PATH}/{kind}/{name}"
    with client_with_roles(server, {workspace_id(client, WORKSPACE_PATH): "Reader"}) as reader:
        assert reader.get(f"{path}/versions/1").status_code == 200
        assert put(reader, kind, name, "2").status_code == 403
        assert reader.put(path, json={"properties": {}}).status_code == 403
        assert reader.delete(path).status_code == 403
        assert reader.post(f"{path}/versions/2/startPendingUpload", json={}).status_code == 403
    with client_with_roles(server, {}) as stranger:
        for address in (path, f"{path}/versions/1", f"{path}/versions", f"{WORKSPACE_PATH}/{kind}"):
            assert stranger.get(address).status_code == 403


def test_data_of_other_workspaces_is_not_opened(
    server: ServerProcess, client: httpx.Client, name: str
) -> None:
    other = WORKSPACE_PATH.replace("/workspaces/main", f"/workspaces/{name}")
    assert client.put(other, json={}).status_code == 201
    account = client.get(f"{other}/datastores/workspaceblobstore").json()["properties"]["accountName"]
    pointers = [
        f"azureml:{other}/data/d/versions/1",
        f"azureml:/{other}/datastores/workspaceblobstore/paths/x",
        f"https://{account}.blob.local/azureml-blobstore/x",
    ]
    with client_with_roles(server, {workspace_id(client, WORKSPACE_PATH): "Owner"}) as stranger:
        for pointer in pointers:
            body = {"properties": {"dataType": "uri_file", "dataUri": pointer}}
            answer = stranger.put(f"{WORKSPACE_PATH}/data/{name}/versions/1", json=body)
            assert answer.status_code == 403, pointer
    assert client.delete(other).status_code == 202
