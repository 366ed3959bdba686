"""MLflow's REST API over the wire: envelope, access, limits, paging, artifacts. Real clients are in tests/sdk."""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from noriba.database import Database
from noriba.database.migrate import upgrade
from noriba.identity.principals import insert_principal
from tests.conftest import SUBSCRIPTION, WORKSPACE_PATH
from tests.server import ServerProcess

API = "/api/2.0/mlflow"
PLAIN = f"/mlflow/plain{WORKSPACE_PATH}{API}"
AZURE = f"/mlflow/v2.0{WORKSPACE_PATH}{API}"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def experiment(client: httpx.Client) -> str:
    answer = client.post(f"{API}/experiments/create", json={"name": f"e-{uuid.uuid4().hex}"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["experiment_id"])


@pytest.fixture
def run(client: httpx.Client, experiment: str) -> str:
    return new_run(client, experiment)


def new_run(client: httpx.Client, experiment: str, **values: Any) -> str:
    body = {"experiment_id": experiment, "start_time": 1, **values}
    answer = client.post(f"{API}/runs/create", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["run"]["info"]["run_id"])


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error_code", "message"}
    assert body["error_code"] == code, body
    return str(body["message"])


# --- envelope and access


def test_errors_have_mlflows_envelope(client: httpx.Client, server: ServerProcess) -> None:
    refused(client.get(f"{API}/runs/get", params={"run_id": "none"}), 404, "RESOURCE_DOES_NOT_EXIST")
    refused(client.get(f"{API}/runs/get"), 400, "INVALID_PARAMETER_VALUE")
    refused(client.get(f"{API}/traces/x/info"), 404, "ENDPOINT_NOT_FOUND")
    refused(client.post("/api/3.0/mlflow/traces", json={}), 404, "ENDPOINT_NOT_FOUND")
    refused(client.put(f"{API}/runs/create", json={}), 404, "ENDPOINT_NOT_FOUND")
    refused(client.post(f"{API}/runs/create", content=b"{"), 400, "INVALID_PARAMETER_VALUE")
    refused(client.post(f"{API}/runs/create", content=b"[]"), 400, "INVALID_PARAMETER_VALUE")
    body = {"experiment_id": "0", "user_id": "a\0b"}
    refused(client.post(f"{API}/runs/create", json=body), 400, "INVALID_PARAMETER_VALUE")
    with httpx.Client(base_url=server.url, verify=server.tls()) as nobody:
        refused(nobody.get(f"{API}/runs/get", params={"run_id": "x"}), 401, "UNAUTHENTICATED")
        answer = nobody.get(f"{PLAIN}/runs/get", headers={"Authorization": "Bearer x"})
        refused(answer, 401, "UNAUTHENTICATED")


def test_a_token_is_good_as_password_of_basic_authentication(server: ServerProcess) -> None:
    with server.client() as client:
        token = client.headers["Authorization"].split()[1]
    basic = base64.b64encode(f"user:{token}".encode()).decode()
    with httpx.Client(base_url=server.url, verify=server.tls()) as other:
        answer = other.get(
            f"{API}/experiments/get",
            params={"experiment_id": "0"},
            headers={"Authorization": f"Basic {basic}"},
        )
    assert answer.status_code == 200
    assert answer.json()["experiment"]["name"] == "Default"


@pytest.fixture
def signed_in(server: ServerProcess) -> Callable[[dict[str, str]], httpx.Client]:
    """A client signed in as a new user with roles by workspace id."""

    def sign_in(roles: dict[str, str]) -> httpx.Client:
        secret = uuid.uuid4().hex
        database = Database(server.info.database)
        try:
            upgrade(database)
            database.write_now(
                lambda connection: insert_principal(
                    connection,
                    name=f"user-{secret[:6]}",
                    kind="user",
                    tenant_id=str(uuid.uuid4()),
                    secret=secret,
                    roles=roles,
                    now=time.time(),
                )
            )
        finally:
            database.close()
        return server.client(secret=secret)

    return sign_in


def test_roles(
    client: httpx.Client, signed_in: Callable[[dict[str, str]], httpx.Client], experiment: str, run: str
) -> None:
    with signed_in({"*": "Reader"}) as reader:
        assert reader.get(f"{API}/runs/get", params={"run_id": run}).status_code == 200
        found = reader.post(f"{API}/runs/search", json={"experiment_ids": [experiment]})
        assert [item["info"]["run_id"] for item in found.json()["runs"]] == [run]
        for method, path, body in (
            ("POST", "/runs/create", {"experiment_id": experiment}),
            ("POST", "/runs/log-metric", {"run_id": run, "key": "a", "value": 1, "timestamp": 1}),
            ("POST", "/experiments/create", {"name": "x"}),
            ("DELETE", "/registered-models/delete", {"name": "x"}),
        ):
            refused(reader.request(method, API + path, json=body), 403, "PERMISSION_DENIED")
        refused(reader.put(f"{PROXY}/{experiment}/{run}/artifacts/a", content=b"x"), 403, "PERMISSION_DENIED")
        history = f"/history/v1.0{WORKSPACE_PATH}/experiments/e/runs/{run}/artifacts"
        assert reader.post(f"{history}/batch/metadata", json={"paths": [{"path": "a"}]}).status_code == 403
        assert reader.get(f"{history}/write", params={"path": "a"}).status_code == 403
        assert reader.get(history).status_code == 200
    with signed_in({str(uuid.uuid4()): "Owner"}) as stranger:
        for path in (API, PLAIN, AZURE):
            refused(stranger.get(f"{path}/runs/get", params={"run_id": run}), 403, "PERMISSION_DENIED")


def test_only_a_job_gets_its_token_refreshed(client: httpx.Client, run: str) -> None:
    for kind in ("experiments", "experimentids"):
        answer = client.get(f"/history/v1.0{WORKSPACE_PATH}/{kind}/e/runs/{run}/token")
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "AuthorizationFailed"


def test_unknown_workspace(client: httpx.Client) -> None:
    other = f"/mlflow/plain/subscriptions/{SUBSCRIPTION}/resourceGroups/x"
    other += "/providers/Microsoft.MachineLearningServices/workspaces/none"
    refused(client.get(f"{other}{API}/experiments/search"), 404, "RESOURCE_DOES_NOT_EXIST")


# --- the same runs at every prefix


def test_addresses_fit_the_prefix(client: httpx.Client, experiment: str, run: str) -> None:
    uris = {
        prefix: client.get(f"{prefix}/runs/get", params={"run_id": run}).json()["run"]["info"]["artifact_uri"]
        for prefix in (
            API,
            PLAIN,
            AZURE,
            AZURE.replace("v2.0", "v1.0"),
            f"/ajax-api{API.removeprefix('/api')}",
        )
    }
    plain = f"mlflow-artifacts:/{experiment}/{run}/artifacts"
    assert uris[API] == uris[PLAIN] == uris[f"/ajax-api{API.removeprefix('/api')}"] == plain
    assert uris[AZURE] == uris[AZURE.replace("v2.0", "v1.0")]
    host = client.base_url.netloc.decode()
    assert uris[AZURE] == (
        f"azureml://{host}/mlflow/v2.0{WORKSPACE_PATH}/experiments/{experiment}/runs/{run}/artifacts"
    )


def test_probes(client: httpx.Client) -> None:
    assert client.get("/version").text.startswith("3.")
    assert client.get("/api/3.0/mlflow/server-info").json()["workspaces_enabled"] is False


# --- what is accepted


@pytest.mark.parametrize(
    "metric",
    [
        {"key": "", "value": 1, "timestamp": 1},
        {"key": "a", "timestamp": 1},
        {"key": "a", "value": "x", "timestamp": 1},
        {"key": "a", "value": True, "timestamp": 1},
        {"key": "a", "value": 1},
        {"key": "a", "value": 1, "timestamp": -1},
        {"key": "a", "value": 1, "timestamp": 2**63},
        {"key": "a", "value": 1, "timestamp": 1, "step": 2**63},
        {"key": "a", "value": 1, "timestamp": 1, "step": 1.5},
        {"key": "../a", "value": 1, "timestamp": 1},
        {"key": "a/../b", "value": 1, "timestamp": 1},
        {"key": "a//b", "value": 1, "timestamp": 1},
        {"key": "a$b", "value": 1, "timestamp": 1},
        {"key": "a" * 251, "value": 1, "timestamp": 1},
    ],
)
def test_bad_metrics_are_refused(client: httpx.Client, run: str, metric: dict[str, Any]) -> None:
    refused(
        client.post(f"{API}/runs/log-metric", json={"run_id": run, **metric}), 400, "INVALID_PARAMETER_VALUE"
    )
    answer = client.post(
        f"{API}/runs/log-batch",
        json={"run_id": run, "metrics": [metric], "params": [{"key": "p", "value": "1"}]},
    )
    refused(answer, 400, "INVALID_PARAMETER_VALUE")
    found = client.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]["data"]
    assert (found["metrics"], found["params"]) == ([], []), "all or nothing"


def test_good_metrics_are_taken(client: httpx.Client, run: str) -> None:
    for key, value in (("a b/c.d:e-f_g", "NaN"), ("é", "-Infinity"), ("x" * 250, "1.5"), ("i", 3)):
        body = {"run_id": run, "key": key, "value": value, "timestamp": "17", "step": "-3"}
        answer = client.post(f"{API}/runs/log-metric", json=body)
        assert (answer.status_code, answer.json()) == (200, {}), answer.text
    found = client.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]["data"]["metrics"]
    assert {item["key"][:5]: (item["value"], item["timestamp"], item["step"]) for item in found} == {
        "a b/c": ("NaN", 17, -3),
        "é": ("-Infinity", 17, -3),
        "xxxxx": (1.5, 17, -3),
        "i": (3, 17, -3),
    }


@pytest.mark.parametrize(
    ("metrics", "params", "tags"), [(1001, 0, 0), (0, 101, 0), (0, 0, 101), (950, 51, 0), (900, 51, 50)]
)
def test_batches_have_limits(client: httpx.Client, run: str, metrics: int, params: int, tags: int) -> None:
    body = {
        "run_id": run,
        "metrics": [{"key": f"m{index}", "value": 1, "timestamp": 1} for index in range(metrics)],
        "params": [{"key": f"p{index}", "value": "1"} for index in range(params)],
        "tags": [{"key": f"t{index}", "value": "1"} for index in range(tags)],
    }
    message = refused(client.post(f"{API}/runs/log-batch", json=body), 400, "INVALID_PARAMETER_VALUE")
    assert "at most" in message


def test_params_never_change_and_come_once(client: httpx.Client, run: str) -> None:
    def batch(*params: tuple[str, str]) -> httpx.Response:
        pairs = [{"key": key, "value": value} for key, value in params]
        return client.post(f"{API}/runs/log-batch", json={"run_id": run, "params": pairs})

    assert batch(("a", "1")).status_code == 200
    assert batch(("a", "1")).status_code == 200
    assert "already" in refused(batch(("b", "1"), ("a", "2")), 400, "INVALID_PARAMETER_VALUE")
    assert "Duplicate" in refused(batch(("c", "1"), ("c", "1")), 400, "INVALID_PARAMETER_VALUE")
    single = client.post(f"{API}/runs/log-parameter", json={"run_id": run, "key": "a", "value": "3"})
    refused(single, 400, "INVALID_PARAMETER_VALUE")
    long = client.post(f"{API}/runs/log-parameter", json={"run_id": run, "key": "l", "value": "x" * 7000})
    assert long.status_code == 200
    found = client.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]["data"]["params"]
    assert {item["key"]: len(item["value"]) for item in found} == {"a": 1, "l": 6000}


def test_tags(client: httpx.Client, run: str) -> None:
    def tags() -> dict[str, str]:
        found = client.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]
        return {item["key"]: item["value"] for item in found["data"]["tags"]}

    for value in ("1", "2"):
        assert (
            client.post(f"{API}/runs/set-tag", json={"run_id": run, "key": "t", "value": value}).status_code
            == 200
        )
    assert tags()["t"] == "2"
    name = {"run_uuid": run, "key": "mlflow.runName", "value": "renamed"}
    assert client.post(f"{API}/runs/set-tag", json=name).status_code == 200
    assert (
        client.get(f"{API}/runs/get", params={"run_uuid": run}).json()["run"]["info"]["run_name"] == "renamed"
    )
    assert client.post(f"{API}/runs/delete-tag", json={"run_id": run, "key": "t"}).status_code == 200
    again = client.post(f"{API}/runs/delete-tag", json={"run_id": run, "key": "t"})
    refused(again, 404, "RESOURCE_DOES_NOT_EXIST")


def test_life_of_a_run(client: httpx.Client, run: str) -> None:
    updated = client.post(
        f"{API}/runs/update", json={"run_id": run, "status": "FINISHED", "end_time": 5, "run_name": "n"}
    ).json()["run_info"]
    assert (updated["status"], updated["end_time"], updated["run_name"]) == ("FINISHED", 5, "n")
    refused(
        client.post(f"{API}/runs/update", json={"run_id": run, "status": "Completed"}),
        400,
        "INVALID_PARAMETER_VALUE",
    )
    assert client.post(f"{API}/runs/delete", json={"run_id": run}).status_code == 200
    metric = {"run_id": run, "key": "a", "value": 1, "timestamp": 1}
    refused(client.post(f"{API}/runs/log-metric", json=metric), 400, "INVALID_PARAMETER_VALUE")
    assert client.post(f"{API}/runs/restore", json={"run_id": run}).status_code == 200
    assert client.post(f"{API}/runs/log-metric", json=metric).status_code == 200


def test_experiments(client: httpx.Client) -> None:
    name = f"e-{uuid.uuid4().hex}"
    body = {"name": name, "tags": [{"key": "a", "value": "b"}]}
    created = client.post(f"{API}/experiments/create", json=body).json()["experiment_id"]
    refused(client.post(f"{API}/experiments/create", json=body), 400, "RESOURCE_ALREADY_EXISTS")
    found = client.get(f"{API}/experiments/get-by-name", params={"experiment_name": name}).json()[
        "experiment"
    ]
    assert (found["experiment_id"], found["tags"]) == (created, [{"key": "a", "value": "b"}])
    assert found["artifact_location"] == f"mlflow-artifacts:/{created}"
    client.post(
        f"{API}/experiments/set-experiment-tag", json={"experiment_id": created, "key": "c", "value": "d"}
    ).raise_for_status()
    client.post(
        f"{API}/experiments/delete-experiment-tag", json={"experiment_id": created, "key": "a"}
    ).raise_for_status()
    search = client.post(
        f"{API}/experiments/search", json={"filter": f"name = '{name}' AND tags.c = 'd'", "max_results": 5}
    )
    assert [item["tags"] for item in search.json()["experiments"]] == [[{"key": "c", "value": "d"}]]
    client.post(f"{API}/experiments/delete", json={"experiment_id": created}).raise_for_status()
    listed = client.get(
        f"{API}/experiments/search", params={"view_type": "DELETED_ONLY", "max_results": 1000}
    )
    assert created in {item["experiment_id"] for item in listed.json()["experiments"]}
    refused(
        client.post(f"{API}/experiments/update", json={"experiment_id": created, "new_name": "x"}),
        400,
        "INVALID_STATE",
    )
    client.post(f"{API}/experiments/restore", json={"experiment_id": created}).raise_for_status()
    for location in ("file:///etc", "/etc", "mlflow-artifacts:/x", "https://h/x", "s3://b/../x", "runs:/x"):
        answer = client.post(
            f"{API}/experiments/create", json={"name": name + "2", "artifact_location": location}
        )
        refused(answer, 400, "INVALID_PARAMETER_VALUE")


def test_pages(client: httpx.Client, experiment: str) -> None:
    runs = {new_run(client, experiment, start_time=index + 1) for index in range(5)}
    seen: list[str] = []
    token: str | None = None
    while True:
        body = {
            "experiment_ids": [experiment],
            "max_results": 2,
            "page_token": token,
            "order_by": ["start_time ASC"],
        }
        answer = client.post(f"{API}/runs/search", json=body).json()
        seen += [item["info"]["run_id"] for item in answer["runs"]]
        token = answer.get("next_page_token")
        if token is None:
            break
    assert len(seen) == 5
    assert set(seen) == runs
    for bad in ("nonsense", base64.b64encode(b'{"offset": -1}').decode(), base64.b64encode(b"{}").decode()):
        refused(client.post(f"{API}/runs/search", json={"page_token": bad}), 400, "INVALID_PARAMETER_VALUE")
    refused(client.post(f"{API}/runs/search", json={"max_results": 50_001}), 400, "INVALID_PARAMETER_VALUE")
    refused(client.post(f"{API}/runs/search", json={"filter": "nonsense"}), 400, "INVALID_PARAMETER_VALUE")


def test_metric_histories(client: httpx.Client, experiment: str, run: str) -> None:
    other = new_run(client, experiment)
    for target in (run, other):
        metrics = [{"key": "m", "value": index, "timestamp": index, "step": index} for index in range(10)]
        client.post(f"{API}/runs/log-batch", json={"run_id": target, "metrics": metrics}).raise_for_status()
    page = client.get(
        f"{API}/metrics/get-history", params={"run_id": run, "metric_key": "m", "max_results": 4}
    ).json()
    assert [item["step"] for item in page["metrics"]] == [0, 1, 2, 3]
    rest = client.get(
        f"{API}/metrics/get-history",
        params={"run_id": run, "metric_key": "m", "max_results": 9, "page_token": page["next_page_token"]},
    ).json()
    assert [item["step"] for item in rest["metrics"]] == [4, 5, 6, 7, 8, 9]
    assert "next_page_token" not in rest
    bulk = client.get(
        f"{API}/metrics/get-history-bulk", params={"run_id": [run, other], "metric_key": "m"}
    ).json()
    assert {item["run_id"] for item in bulk["metrics"]} == {run, other}
    assert len(bulk["metrics"]) == 20
    interval = client.get(
        f"{API}/metrics/get-history-bulk-interval",
        params={"run_ids": [run], "metric_key": "m", "start_step": 2, "end_step": 8, "max_results": 3},
    ).json()
    assert [item["step"] for item in interval["metrics"]] == [2, 5, 8]
    for params in ({"metric_key": "m"}, {"run_ids": run, "metric_key": "m", "start_step": 1}):
        refused(
            client.get(f"{API}/metrics/get-history-bulk-interval", params=params),
            400,
            "INVALID_PARAMETER_VALUE",
        )


def test_datasets_and_models_of_a_run(client: httpx.Client, experiment: str, run: str) -> None:
    dataset = {"name": "iris", "digest": "abc", "source_type": "local", "source": "{}", "schema": "{}"}
    body = {
        "run_id": run,
        "datasets": [{"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "train"}]}],
        "models": [{"model_id": "m-1"}],
    }
    for _ in range(2):
        client.post(f"{API}/runs/log-inputs", json=body).raise_for_status()
    client.post(
        f"{API}/runs/outputs", json={"run_id": run, "models": [{"model_id": "m-2", "step": 3}]}
    ).raise_for_status()
    found = client.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]
    assert found["inputs"]["dataset_inputs"] == body["datasets"]
    assert found["inputs"]["model_inputs"] == [{"model_id": "m-1"}]
    assert found["outputs"]["model_outputs"] == [{"model_id": "m-2", "step": 3}]
    for text in ("dataset.name = 'iris'", "datasets.context = 'train'", "dataset.digest IN ('abc')"):
        answer = client.post(f"{API}/runs/search", json={"experiment_ids": [experiment], "filter": text})
        assert len(answer.json()["runs"]) == 1, text
    summaries = client.post(
        f"{API}/experiments/search-datasets", json={"experiment_ids": [experiment]}
    ).json()
    assert summaries["dataset_summaries"] == [
        {"experiment_id": experiment, "name": "iris", "digest": "abc", "context": "train"}
    ]
    bad = {"run_id": run, "datasets": [{"dataset": {**dataset, "digest": "x" * 40}}]}
    refused(client.post(f"{API}/runs/log-inputs", json=bad), 400, "INVALID_PARAMETER_VALUE")


# --- artifacts


def test_artifacts_through_the_proxy(client: httpx.Client, experiment: str, run: str) -> None:
    root = f"{PROXY}/{experiment}/{run}/artifacts"
    for path, content in (("a.txt", b"hello"), ("d/é b.bin", b"\0\1"), ("d/e/empty", b"")):
        assert client.put(f"{root}/{path}", content=content).status_code == 200
        answer = client.get(f"{root}/{path}")
        assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment")
    listed = client.get(PROXY, params={"path": f"{experiment}/{run}/artifacts"}).json()["files"]
    assert listed == [{"path": "a.txt", "is_dir": False, "file_size": 5}, {"path": "d", "is_dir": True}]
    listed = client.get(f"{API}/artifacts/list", params={"run_id": run, "path": "d"}).json()
    assert listed["root_uri"] == f"mlflow-artifacts:/{experiment}/{run}/artifacts"
    assert [item["path"] for item in listed["files"]] == ["d/e", "d/é b.bin"]
    assert client.get(f"{API}/artifacts/list", params={"run_id": run, "path": "a.txt"}).json()["files"] == []
    part = client.get(f"{root}/a.txt", headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"ell", "bytes 1-3/5")
    assert client.get(f"{root}/a.txt", headers={"Range": "bytes=-2"}).content == b"lo"
    assert client.get(f"{root}/a.txt", headers={"Range": "bytes=9-"}).status_code == 416
    assert client.get("/get-artifact", params={"run_uuid": run, "path": "a.txt"}).content == b"hello"
    assert client.put(f"{root}/a.txt", content=b"again").status_code == 200
    assert client.get(f"{root}/a.txt").content == b"again", "logging again replaces"
    assert client.delete(f"{root}/d").status_code == 200
    assert client.get(f"{API}/artifacts/list", params={"run_id": run, "path": "d"}).json()["files"] == []
    refused(client.delete(f"{root}/d"), 404, "RESOURCE_DOES_NOT_EXIST")
    refused(client.get(f"{root}/none"), 404, "RESOURCE_DOES_NOT_EXIST")
    refused(client.get(f"{PROXY}/0/no-run/artifacts/x"), 404, "RESOURCE_DOES_NOT_EXIST")


def test_artifacts_are_the_files_of_the_run(
    client: httpx.Client, server: ServerProcess, experiment: str, run: str
) -> None:
    client.put(f"{PROXY}/{experiment}/{run}/artifacts/x/y.txt", content=b"data").raise_for_status()
    history = f"/history/v1.0{WORKSPACE_PATH}/experimentids/{experiment}/runs/{run}/artifacts"
    info = client.get(f"{history}/contentinfo", params={"path": "x/y.txt"}).json()
    assert f"/azureml/ExperimentRun/dcid.{run}/x/y.txt?" in info["contentUri"]
    with httpx.Client(verify=server.tls()) as anybody:
        assert anybody.get(info["contentUri"]).content == b"data"


@pytest.mark.parametrize(
    "path",
    [
        "..%2f..%2fsecret",
        "%2e%2e/x",
        "a/%2e%2e/%2e%2e/x",
        "%252e%252e%252fx",
        "a%5c..%5cb",
        "a%00b",
        "a//b",
        "%2fetc%2fpasswd",
        "file:%2f%2f%2fetc%2fpasswd",
    ],
)
def test_path_tricks(client: httpx.Client, experiment: str, run: str, path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        url = httpx.URL(f"{client.base_url}".rstrip("/")).copy_with(
            raw_path=f"{PROXY}/{experiment}/{run}/artifacts/{path}".encode()
        )
        answer = client.request(method, url, content=b"x" if method == "PUT" else None)
        refused(answer, 400, "INVALID_PARAMETER_VALUE")
    if "%00" not in path:
        refused(client.get(f"{API}/artifacts/list?run_id={run}&path={path}"), 400, "INVALID_PARAMETER_VALUE")
    for root in (f"{experiment}/{run}/other/x", "x", f"{experiment}/models/m-1/x", ""):
        assert client.put(f"{PROXY}/{root}", content=b"x").status_code in (400, 404)


def test_an_upload_cut_off_leaves_nothing(client: httpx.Client, experiment: str, run: str) -> None:
    path = f"{PROXY}/{experiment}/{run}/artifacts/big"

    def broken() -> Iterator[bytes]:
        for _ in range(40):
            yield os.urandom(1 << 20)
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError):
        client.put(path, content=broken())
    refused(client.get(path), 404, "RESOURCE_DOES_NOT_EXIST")


def test_a_large_artifact_streams(client: httpx.Client, experiment: str, run: str) -> None:
    path = f"{PROXY}/{experiment}/{run}/artifacts/large"
    chunk = os.urandom(1 << 20)
    client.put(path, content=(chunk for _ in range(96))).raise_for_status()
    total = 0
    with client.stream("GET", path) as answer:
        assert answer.headers["content-length"] == str(96 << 20)
        for received in answer.iter_bytes(1 << 20):
            assert received == chunk
            total += len(received)
    assert total == 96 << 20


def test_uploads_in_parts(client: httpx.Client, experiment: str, run: str) -> None:
    folder = f"{experiment}/{run}/artifacts/m"
    mpu = "/api/2.0/mlflow-artifacts/mpu"
    begun = client.post(f"{mpu}/create/{folder}", json={"path": "/home/me/w.bin", "num_parts": 2}).json()
    other = client.post(f"{mpu}/create/{folder}", json={"path": "w.bin", "num_parts": 1}).json()
    for upload, content in ((begun, b"ab"), (other, b"x")):
        for credential in upload["credentials"]:
            put = client.put(credential["url"], content=content, headers={"Authorization": ""})
            assert put.status_code == 201, put.text
    refused(client.get(f"{PROXY}/{folder}/w.bin"), 404, "RESOURCE_DOES_NOT_EXIST")
    parts = [{"part_number": item["part_number"], "url": item["url"]} for item in begun["credentials"]]
    body = {"path": "/home/me/w.bin", "upload_id": begun["upload_id"], "parts": parts}
    assert client.post(f"{mpu}/complete/{folder}", json=body).status_code == 200
    assert client.get(f"{PROXY}/{folder}/w.bin").content == b"abab"
    presigned = client.get(f"/api/2.0/mlflow-artifacts/presigned/{folder}/w.bin").json()
    assert presigned["file_size"] == 4
    assert client.get(presigned["url"], headers={"Authorization": ""}).content == b"abab"
    for bad in (
        {**body, "upload_id": "x"},
        {**body, "parts": []},
        {**body, "parts": parts[:1] * 2},
        {**body, "path": ".."},
        {**body, "path": ""},
    ):
        refused(client.post(f"{mpu}/complete/{folder}", json=bad), 400, "INVALID_PARAMETER_VALUE")
    again = client.post(f"{mpu}/complete/{folder}", json=body)
    assert again.status_code == 400, "its parts are used up"
    refused(
        client.post(f"{mpu}/create/{folder}", json={"path": "a", "num_parts": 0}),
        400,
        "INVALID_PARAMETER_VALUE",
    )
    assert client.post(f"{mpu}/abort/{folder}", json=body).status_code == 200


def test_azures_artifact_service(client: httpx.Client, run: str) -> None:
    service = f"/artifact/v2.0{WORKSPACE_PATH}/artifacts/LocalUpload/{uuid.uuid4().hex}"
    batch = client.post(
        f"{service}/batch/metadata", json={"paths": [{"path": "m/a"}, {"path": "../x"}]}
    ).json()
    assert list(batch["artifacts"]) == ["m/a"]
    assert batch["errors"]["../x"]["error"]["code"] == "INVALID_PARAMETER_VALUE"
    uri = batch["artifactContentInformation"]["m/a"]["contentUri"]
    put = client.put(uri, content=b"x", headers={"x-ms-blob-type": "BlockBlob", "Authorization": ""})
    assert put.status_code == 201, put.text
    listed = client.get(service).json()["value"]
    assert [item["path"] for item in listed] == ["m/a"]
    identity = listed[0]["artifactId"]
    found = client.post(
        f"/artifact/v2.0{WORKSPACE_PATH}/artifacts/batch/metadata",
        json={"artifactIds": [identity, "LocalUpload/x/y"]},
    ).json()
    assert list(found["artifacts"]) == [identity]
    assert list(found["errors"]) == ["LocalUpload/x/y"]
    assert client.get(f"{service}/content", params={"path": "m/a"}).content == b"x"
    assert client.post(f"{service}/content", params={"path": "m/b"}, content=b"y").json()["path"] == "m/b"
    below = client.get(f"{service}/prefix/contentinfo", params={"path": "m"}).json()["value"]
    assert [item["path"] for item in below] == ["m/a", "m/b"]
    assert client.delete(f"{service}/metadata", params={"path": "m/b"}).status_code == 204
    missing = client.get(f"{service}/contentinfo", params={"path": "m/b"})
    assert missing.status_code == 404
    assert missing.json()["error"]["message"]


def test_pages_of_azures_lists(client: httpx.Client, experiment: str, run: str) -> None:
    root = f"{PROXY}/{experiment}/{run}/artifacts"
    for index in range(3):
        client.put(f"{root}/f{index}", content=b"x").raise_for_status()
    history = f"/history/v1.0{WORKSPACE_PATH}/experiments/e/runs/{run}/artifacts"
    page = client.get(history).json()
    assert [item["path"] for item in page["value"]] == ["f0", "f1", "f2"]
    assert "nextLink" not in page


# --- registry and logged models


def test_registry_over_the_wire(client: httpx.Client, experiment: str, run: str) -> None:
    name = f"m-{uuid.uuid4().hex}"
    client.put(
        f"{PROXY}/{experiment}/{run}/artifacts/model/MLmodel", content=b"flavors: {}"
    ).raise_for_status()
    created = client.post(
        f"{API}/registered-models/create", json={"name": name, "tags": [{"key": "a", "value": "b"}]}
    )
    assert created.json()["registered_model"]["name"] == name
    refused(
        client.post(f"{API}/registered-models/create", json={"name": name}), 400, "RESOURCE_ALREADY_EXISTS"
    )
    body = {"name": name, "source": f"runs:/{run}/model", "run_id": run}
    version = client.post(f"{API}/model-versions/create", json=body).json()["model_version"]
    assert (version["version"], version["status"], version["run_id"]) == ("1", "READY", run)
    asset = client.get(f"{WORKSPACE_PATH}/models/{name}/versions/1").json()
    assert asset["properties"]["modelUri"].endswith(
        f"/datastores/workspaceartifactstore/paths/ExperimentRun/dcid.{run}/model"
    )
    uri = client.get(f"{API}/model-versions/get-download-uri", params={"name": name, "version": "1"}).json()
    assert uri["artifact_uri"].startswith("mlflow-artifacts:/")
    path = uri["artifact_uri"].removeprefix("mlflow-artifacts:/")
    assert client.get(f"{PROXY}/{path}/MLmodel").content == b"flavors: {}"
    file = client.get(
        "/model-versions/get-artifact", params={"name": name, "version": "1", "path": "MLmodel"}
    )
    assert file.content == b"flavors: {}"
    client.post(
        f"{API}/registered-models/alias", json={"name": name, "alias": "champion", "version": "1"}
    ).raise_for_status()
    by_alias = client.get(f"{API}/registered-models/alias", params={"name": name, "alias": "champion"})
    assert by_alias.json()["model_version"]["aliases"] == ["champion"]
    for alias in ("latest", "v1", "a b", ""):
        bad = client.post(
            f"{API}/registered-models/alias", json={"name": name, "alias": alias, "version": "1"}
        )
        refused(bad, 400, "INVALID_PARAMETER_VALUE")
    for source in (
        "/etc/passwd",
        "file:///etc",
        "runs:/none/x",
        f"runs:/{run}/../x",
        "mlflow-artifacts:/x",
        "models:/m-none",
    ):
        bad = client.post(f"{API}/model-versions/create", json={"name": name, "source": source})
        assert bad.status_code in (400, 404), source
        assert bad.json()["error_code"] in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
    body = {"name": name, "version": "1", "stage": "production"}
    moved = client.post(f"{API}/model-versions/transition-stage", json=body).json()
    assert moved["model_version"]["current_stage"] == "Production"
    latest = client.post(
        f"{API}/registered-models/get-latest-versions", json={"name": name, "stages": ["Production"]}
    )
    assert [item["version"] for item in latest.json()["model_versions"]] == ["1"]
    client.request(
        "DELETE", f"{API}/model-versions/delete", json={"name": name, "version": "1"}
    ).raise_for_status()
    refused(
        client.get(f"{API}/model-versions/get", params={"name": name, "version": "1"}),
        404,
        "RESOURCE_DOES_NOT_EXIST",
    )
    client.request("DELETE", f"{API}/registered-models/delete", json={"name": name}).raise_for_status()


def test_logged_models_over_the_wire(client: httpx.Client, experiment: str, run: str) -> None:
    body = {
        "experiment_id": experiment,
        "name": "model",
        "source_run_id": run,
        "params": [{"key": "p", "value": "1"}],
        "tags": [{"key": "t", "value": "1"}],
    }
    created = client.post(f"{API}/logged-models", json=body).json()["model"]
    model = created["info"]["model_id"]
    assert created["info"]["status"] == "LOGGED_MODEL_PENDING"
    address = created["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    client.put(f"{PROXY}/{address}/MLmodel", content=b"x").raise_for_status()
    listed = client.get(f"{API}/logged-models/{model}/artifacts/directories").json()["files"]
    assert [item["path"] for item in listed] == ["MLmodel"]
    assert client.get(f"{PROXY}/{experiment}/{run}/artifacts/model/MLmodel").content == b"x", (
        "in the run, too"
    )
    ready = client.patch(
        f"{API}/logged-models/{model}", json={"model_id": model, "status": "LOGGED_MODEL_READY"}
    )
    assert ready.json()["model"]["info"]["status"] == "LOGGED_MODEL_READY"
    client.patch(
        f"{API}/logged-models/{model}/tags", json={"tags": [{"key": "u", "value": "2"}]}
    ).raise_for_status()
    client.delete(f"{API}/logged-models/{model}/tags/t").raise_for_status()
    refused(client.delete(f"{API}/logged-models/{model}/tags/t"), 404, "RESOURCE_DOES_NOT_EXIST")
    metric = {
        "run_id": run,
        "key": "acc",
        "value": 0.5,
        "timestamp": 1,
        "model_id": model,
        "dataset_name": "d",
    }
    client.post(f"{API}/runs/log-metric", json=metric).raise_for_status()
    found = client.post(
        f"{API}/logged-models/search",
        json={"experiment_ids": [experiment], "filter": "metrics.acc > 0.1 AND tags.u = '2'"},
    ).json()["models"]
    assert [item["info"]["model_id"] for item in found] == [model]
    assert found[0]["data"]["metrics"][0]["run_id"] == run
    client.delete(f"{API}/logged-models/{model}").raise_for_status()
    refused(client.get(f"{API}/logged-models/{model}"), 404, "RESOURCE_DOES_NOT_EXIST")
    gone = client.get(f"{API}/logged-models/{model}", params={"allow_deleted": "true"})
    assert gone.json()["model"]["info"]["model_id"] == model


def test_json_bodies_of_older_clients(client: httpx.Client, run: str) -> None:
    text = json.dumps({"run_id": run, "key": "a", "value": 1.5, "timestamp": 1, "unknown": {"x": 1}})
    answer = client.post(f"{API}/runs/log-metric", content=text)
    assert answer.status_code == 200, "no content type, unknown fields"
