"""The job routes as HTTP clients see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import WORKSPACE_PATH
from tests.server import ServerProcess

JOBS = f"{WORKSPACE_PATH}/jobs"
HISTORY = f"/history/v1.0{WORKSPACE_PATH}"
ENVIRONMENT = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def body(**fields: Any) -> dict[str, Any]:
    """A command job."""
    properties = {"jobType": "Command", "command": "true", "environmentId": ENVIRONMENT, **fields}
    return {"properties": properties}


def test_a_job_comes_back_as_it_was_sent(client: httpx.Client) -> None:
    sent = body(
        displayName="J",
        experimentName="exp",
        tags={"a": "b"},
        properties={"p": "q"},
        unknownField={"kept": True},
        command="echo ${{inputs.n}}",
        inputs={"n": {"jobInputType": "literal", "value": "3"}},
    )
    answer = client.put(f"{JOBS}/as-sent", json=sent)
    assert answer.status_code == 201
    for document in (answer.json(), client.get(f"{JOBS}/as-sent").json()):
        assert document["id"].endswith("/jobs/as-sent")
        assert document["systemData"]["createdAt"].endswith("Z")
        properties = document["properties"]
        for field, value in sent["properties"].items():
            if field != "properties":
                assert properties[field] == value
        assert properties["properties"]["p"] == "q"
        assert "?" in properties["services"]["Studio"]["endpoint"]
    assert client.put(f"{JOBS}/as-sent", json=sent).status_code == 200


def test_jobs_are_listed_in_pages_newest_first(client: httpx.Client) -> None:
    for number in range(5):
        client.put(f"{JOBS}/page-{number}", json=body(tags={"page": "yes"}, experimentName="pages"))
    seen: list[str] = []
    url = f"{JOBS}?experimentName=pages&$top=2&api-version=1"
    while url:
        answer = client.get(url).json()
        assert len(answer["value"]) <= 2
        seen += [job["name"] for job in answer["value"]]
        url = answer.get("nextLink", "")
    assert seen == [f"page-{number}" for number in (4, 3, 2, 1, 0)]
    tagged = client.get(JOBS, params={"tag": "page=yes"}).json()["value"]
    assert {job["name"] for job in tagged} == set(seen)
    assert client.get(JOBS, params={"jobType": "Sweep"}).json()["value"] == []


def test_names_are_checked(client: httpx.Client) -> None:
    for name in ("-begins-with-a-dash", "has space", "x" * 256):
        answer = client.put(f"{JOBS}/{name}", json=body())
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "InvalidJobName"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "InvalidJson"),
        (b"[]", "InvalidJson"),
        (b"\xff\xfe", "InvalidJson"),
        (b"{}", "ValidationError"),
        (b'{"properties": []}', "ValidationError"),
        (b'{"properties": {"jobType": "Command"}}', "ValidationError"),
        (b"[" * 100_000, "InvalidJson"),
    ],
)
def test_bodies_that_make_no_sense_are_refused(client: httpx.Client, content: bytes, code: str) -> None:
    answer = client.put(f"{JOBS}/nonsense", content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert client.get(f"{JOBS}/nonsense").status_code == 404


def test_a_huge_body_is_refused_early(client: httpx.Client) -> None:
    answer = client.put(f"{JOBS}/huge", content=b" " * (65 * 1024 * 1024))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "RequestBodyTooLarge"


def test_edits_through_history_merge(client: httpx.Client) -> None:
    client.put(f"{JOBS}/edited", json=body(tags={"a": "1"}, experimentName="edits"))
    answer = client.patch(
        f"{HISTORY}/experiments/edits/runs/edited",
        json={"displayName": "New", "tags": {"b": "2"}, "hidden": True},
    )
    assert answer.json()["tags"] == {"a": "1", "b": "2"}
    names = {view: _names(client, view) for view in ("ActiveOnly", "ArchivedOnly", "All")}
    assert "edited" not in names["ActiveOnly"]
    assert "edited" in names["ArchivedOnly"]
    assert "edited" in names["All"]
    assert client.get(JOBS, params={"listViewType": "Some"}).status_code == 400


def test_edits_of_the_wrong_kind_are_refused(client: httpx.Client) -> None:
    client.put(f"{JOBS}/edited-badly", json=body())
    for change in ({"displayName": 7}, {"hidden": "yes"}, {"tags": ["a"]}, {"description": {}}):
        answer = client.patch(f"{HISTORY}/runs/edited-badly", json=change)
        assert answer.status_code == 400, change
        assert answer.json()["error"]["code"] == "ValidationError"


def _names(client: httpx.Client, view: str) -> list[str]:
    return [job["name"] for job in client.get(JOBS, params={"listViewType": view}).json()["value"]]


def test_unknown_jobs_are_404_everywhere(client: httpx.Client) -> None:
    for method, url in (
        ("GET", f"{JOBS}/gone"),
        ("POST", f"{JOBS}/gone/cancel"),
        ("DELETE", f"{JOBS}/gone"),
        ("GET", f"{HISTORY}/runs/gone/details"),
        ("PATCH", f"{HISTORY}/runs/gone"),
    ):
        answer = client.request(method, url, json={} if method == "PATCH" else None)
        assert answer.status_code == 404, url
        assert "gone" in answer.json()["error"]["message"]


def test_a_canceled_job_can_be_deleted_and_its_name_used_again(client: httpx.Client) -> None:
    client.put(f"{JOBS}/brief", json=body(command="sleep 60"))
    assert client.delete(f"{JOBS}/brief").status_code == 409
    canceled = client.post(f"{JOBS}/brief/cancel")
    assert canceled.status_code in (200, 202)
    while canceled.status_code == 202:
        canceled = client.get(canceled.headers["Location"])
    assert client.get(f"{JOBS}/brief").json()["properties"]["status"] == "Canceled"
    assert client.delete(f"{JOBS}/brief").status_code == 200
    assert client.put(f"{JOBS}/brief", json=body(command="echo other")).status_code == 201


def test_the_timeline_tells_who_and_when(client: httpx.Client) -> None:
    client.put(f"{JOBS}/told", json=body())
    first = client.get(f"{JOBS}/told/timeline").json()["value"][0]
    assert first["status"] == "Queued"
    assert first["who"]
    assert "Standard_" in first["message"]
