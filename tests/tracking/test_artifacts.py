"""Paths of artifacts."""

from __future__ import annotations

import posixpath
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noriba.models.errors import BadRequest
from noriba.rest.mlflow_places import PlainPlaces, is_local, parse_address
from noriba.tracking.artifacts import (
    BlobPlace,
    DatastorePlace,
    ModelPlace,
    RunPlace,
    check_path,
    parse_origin,
    parse_proxied,
    proxied_path,
)


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../x",
        "a/../b",
        "a/..",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/./b",
        "%2e%2e/x",
        "%252e%252e/x",
        "..%2fx",
        "a\\..\\b",
        "..\\x",
        "C:\\x",
        "c:/x",
        "file:///etc/passwd",
        "a\0b",
        "a%00b",
        "a\nb",
        "x" * 2000,
        "//host/x",
    ],
)
def test_path_tricks_are_refused(path: str) -> None:
    with pytest.raises(BadRequest, match="Invalid path"):
        check_path(path)


@given(st.text(max_size=30))
def test_what_is_accepted_stays_below(path: str) -> None:
    try:
        checked = check_path(path)
    except BadRequest:
        return
    assert checked
    assert posixpath.normpath(f"/root/{checked}") == f"/root/{checked}"
    assert ".." not in checked.split("/")


@pytest.mark.parametrize("path", ["a", "a/b.txt", "a b/ü.bin", "model/MLmodel", "100%/x", "a..b", ".hidden"])
def test_good_paths_stay_as_they_are(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "place",
    [
        RunPlace("run", "a/b"),
        RunPlace("run", ""),
        ModelPlace("m-1", "MLmodel"),
        DatastorePlace("workspaceblobstore", "LocalUpload/h/x"),
        BlobPlace("LocalUpload", "c", "x y"),
    ],
)
def test_addresses_of_plain_clients_lead_back(place: RunPlace) -> None:
    assert parse_proxied(proxied_path(place)) == place
    assert parse_address(PlainPlaces().place(place)) == place


def test_every_spelling_of_an_address_is_known() -> None:
    ws = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
    expected = RunPlace("r", "model/x y")
    for address in (
        "runs:/r/model/x y",
        "mlflow-artifacts:/0/r/artifacts/model/x%20y",
        "mlflow-artifacts://host:1/0/r/artifacts/model/x y",
        "https://h:1/api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/model/x%20y",
        f"https://h/mlflow/plain{ws}/api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/model/x%20y",
        f"azureml://h:1/mlflow/v2.0{ws}/experiments/0/runs/r/artifacts/model/x%20y",
        "azureml://jobs/r/outputs/artifacts/paths/model/x y",
        "azureml://artifacts/ExperimentRun/dcid.r/model/x y",
    ):
        assert parse_address(address) == expected, address
    assert parse_address(
        "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/a/b/"
    ) == (DatastorePlace("d", "a/b"))
    assert parse_address("azureml://artifacts/LoggedModel/m-1/artifacts/x") == ModelPlace("m-1", "x")
    assert parse_address("s3://bucket/x") is None
    for address in ("mlflow-artifacts:/0/r/artifacts/../../x", "runs:/r/../x", "mlflow-artifacts:/secret"):
        with pytest.raises(BadRequest):
            parse_address(address)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("file:///x", True),
        ("/x", True),
        ("x", True),
        ("C:\\x", True),
        ("s3://b/x", False),
        ("runs:/r", False),
    ],
)
def test_local_paths(address: str, local: bool) -> None:
    assert is_local(address) is local


def test_origins() -> None:
    assert parse_origin("ExperimentRun", "dcid.r", "a") == RunPlace("r", "a")
    assert parse_origin("LocalUpload", "240101", "m/MLmodel") == BlobPlace(
        "LocalUpload", "240101", "m/MLmodel"
    )
    for origin, container in (
        ("..", "x"),
        ("a", ".."),
        ("", "x"),
        ("a/b", "c"),
        (quote("..", safe=""), "%2e%2e"),
    ):
        with pytest.raises(BadRequest):
            parse_origin(origin, container, "x")
