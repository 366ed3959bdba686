"""Data assets through the unmodified SDK."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.constants import AssetTypes
from azure.ai.ml.entities import Data
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

from tests.conftest import RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE

pytestmark = pytest.mark.sdk

DATASTORES = f"azureml://subscriptions/{SUBSCRIPTION}/resourcegroups/{RESOURCE_GROUP}/workspaces/{WORKSPACE}/datastores"


def folder_of(path: Path) -> str:
    path.mkdir()
    (path / "a.csv").write_text("x\n1\n")
    return str(path)


def test_a_file_is_uploaded(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x\n1\n")
    made = ml_client.data.create_or_update(
        Data(
            name=name, version="1", path=str(file), type=AssetTypes.URI_FILE, description="d", tags={"a": "b"}
        )
    )
    found = ml_client.data.get(name, version="1")
    assert found.path == made.path
    assert found.path.startswith(f"{DATASTORES}/workspaceblobstore/paths/LocalUpload/")
    assert found.path.endswith("/a.csv")
    assert (found.type, found.description, found.tags) == ("uri_file", "d", {"a": "b"})


def test_folders_end_with_a_slash(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    ml_client.data.create_or_update(
        Data(name=name, version="1", path=folder_of(tmp_path / "d"), type="uri_folder")
    )
    assert ml_client.data.get(name, version="1").path.endswith("/d/")


def test_an_mltable_is_uploaded(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    folder = Path(folder_of(tmp_path / "table"))
    (folder / "MLTable").write_text("paths:\n  - file: ./a.csv\ntransformations:\n  - read_delimited: {}\n")
    ml_client.data.create_or_update(
        Data(name=name, version="1", path=str(folder), type="mltable", skip_validation=True)
    )
    found = ml_client.data.get(name, version="1")
    assert (found.type, found.path[-7:]) == ("mltable", "/table/")


@pytest.mark.parametrize(
    ("path", "kind", "kept"),
    [
        ("https://example.com/a.csv", "uri_file", "https://example.com/a.csv"),
        ("https://example.com/folder", "uri_folder", "https://example.com/folder/"),
        (
            "azureml://datastores/workspaceblobstore/paths/some/folder",
            "uri_folder",
            f"{DATASTORES}/workspaceblobstore/paths/some/folder/",
        ),
        (
            f"{DATASTORES}/workspaceartifactstore/paths/x.csv",
            "uri_file",
            f"{DATASTORES}/workspaceartifactstore/paths/x.csv",
        ),
        (
            "wasbs://data@acct.blob.core.windows.net/folder",
            "uri_folder",
            "wasbs://data@acct.blob.core.windows.net/folder/",
        ),
        (
            "abfss://fs@acct.dfs.core.windows.net/a.csv",
            "uri_file",
            "abfss://fs@acct.dfs.core.windows.net/a.csv",
        ),
    ],
)
def test_addresses_are_kept(ml_client: MLClient, name: str, path: str, kind: str, kept: str) -> None:
    ml_client.data.create_or_update(Data(name=name, version="1", path=path, type=kind))
    assert ml_client.data.get(name, version="1").path == kept


def test_versions_count_up_and_latest_is_the_last_created(ml_client: MLClient, name: str) -> None:
    def create(**values: str) -> str:
        data = Data(name=name, path="https://example.com/a.csv", type="uri_file", **values)
        return str(ml_client.data.create_or_update(data).version)

    assert create() == "1"
    assert create() == "2"
    assert create(version="10") == "10"
    assert create() == "11"
    assert create(version="5") == "5"
    assert ml_client.data.get(name, label="latest").version == "5"
    assert [item.version for item in ml_client.data.list(name=name)] == ["5", "11", "10", "2", "1"]
    container = next(item for item in ml_client.data.list() if item.name == name)
    assert container.latest_version == "5"


def test_the_path_of_a_version_can_not_be_changed(ml_client: MLClient, name: str) -> None:
    def create(path: str, **values: object) -> None:
        ml_client.data.create_or_update(Data(name=name, version="1", path=path, type="uri_file", **values))

    create("https://example.com/a.csv")
    create("https://example.com/a.csv", description="new", tags={"x": "y"})
    found = ml_client.data.get(name, version="1")
    assert (found.description, found.tags) == ("new", {"x": "y"})
    with pytest.raises(ResourceExistsError, match="dataUri would differ"):
        create("https://example.com/b.csv")
    with pytest.raises(ResourceExistsError, match="all its versions are of one type"):
        ml_client.data.create_or_update(
            Data(
                name=name,
                version="2",
                path="azureml://datastores/workspaceblobstore/paths/f/",
                type="uri_folder",
            )
        )


def test_archived_data_is_hidden_and_restored(ml_client: MLClient, name: str) -> None:
    for version in ("1", "2"):
        ml_client.data.create_or_update(
            Data(name=name, version=version, path="https://example.com/a.csv", type="uri_file")
        )

    def versions(**view: str) -> list[str]:
        return [str(item.version) for item in ml_client.data.list(name=name, **view)]

    ml_client.data.archive(name, version="1")
    assert versions() == ["2"]
    assert versions(list_view_type="ArchivedOnly") == ["1"]
    assert versions(list_view_type="All") == ["2", "1"]
    ml_client.data.restore(name, version="1")
    ml_client.data.archive(name, label="latest")
    assert versions() == ["1"]
    ml_client.data.archive(name)
    assert versions() == []
    assert name not in {item.name for item in ml_client.data.list()}
    assert ml_client.data.get(name, version="1").version == "1"
    ml_client.data.restore(name)
    assert name in {item.name for item in ml_client.data.list()}


def test_bad_data_is_refused(ml_client: MLClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError, match="nowhere"):
        ml_client.data.create_or_update(
            Data(name=name, version="1", path="azureml://datastores/nowhere/paths/a.csv", type="uri_file")
        )
    with pytest.raises(ResourceNotFoundError):
        ml_client.data.get(name, version="1")
