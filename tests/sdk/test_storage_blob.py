"""The SDK's own upload and download helpers against the blob plane (wire.md 2.3, 2.4, 5.4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.rest.blob_fixtures import Account, Container, account, container

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

__all__ = ["account", "container"]
pytestmark = pytest.mark.sdk


@pytest.fixture
def storage(sdk_environment: None, container: Container, account: Account) -> Callable[[], Any]:
    """Makes the client that the SDK makes for a datastore with a SAS."""
    from azure.ai.ml._artifacts._blob_storage_helper import BlobStorageClient

    return lambda: BlobStorageClient(
        credential=container.token, account_url=account.url, container_name=container.name
    )


def make_folder(folder: Path) -> dict[str, bytes]:
    files = {
        "empty.txt": b"",
        "train.csv": b"a,b\n1,2\n",
        "deep/er/ünï code.bin": os.urandom(70_000),
        "big.bin": os.urandom(66 * 1024 * 1024),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return files


def test_a_folder_goes_up_and_comes_down(
    storage: Callable[[], Any], container: Container, tmp_path: Path
) -> None:
    files = make_folder(tmp_path / "src")
    sent = storage().upload(str(tmp_path / "src"), "data-1", "1", asset_hash="h" * 32, show_progress=False)
    prefix = f"LocalUpload/{'h' * 32}/src"
    assert sent["remote path"] == prefix
    assert set(storage().list(prefix)) == {f"{prefix}/{name}" for name in files}
    head = container.request("HEAD", sent["indicator file"])
    assert head.headers["x-ms-meta-upload_status"] == "completed"
    assert storage().exists(prefix)
    assert not storage().exists(prefix + "x")
    storage().download(prefix, str(tmp_path / "back"))
    found = {
        str(path.relative_to(tmp_path / "back")): path.read_bytes()
        for path in (tmp_path / "back").rglob("*")
        if path.is_file()
    }
    assert found == files


def test_an_upload_that_is_there_already_is_skipped(
    storage: Callable[[], Any], container: Container, tmp_path: Path
) -> None:
    (tmp_path / "x.txt").write_bytes(b"1")
    first = storage().upload(str(tmp_path / "x.txt"), "name-1", "7", asset_hash="a" * 32, show_progress=False)
    etag = container.request("HEAD", first["remote path"]).headers["etag"]
    again = storage().upload(str(tmp_path / "x.txt"), "name-2", "8", asset_hash="a" * 32, show_progress=False)
    assert (again["name"], again["version"]) == ("name-1", "7")
    assert container.request("HEAD", first["remote path"]).headers["etag"] == etag


def test_a_log_with_a_locally_made_signature(account: Account, container: Container) -> None:
    # With an account key the SDK signs by itself, and takes what stands before the first dot for the account.
    from azure.storage.blob import BlobSasPermissions, generate_blob_sas

    container.put("ExperimentRun/dcid.j/user_logs/std_log.txt", b"line\n")
    mistaken = account.url.split("//")[1].split(".")[0]
    token = generate_blob_sas(
        account_name=mistaken,
        container_name=container.name,
        blob_name="ExperimentRun/dcid.j/user_logs/std_log.txt",
        account_key=account.encoded_key,
        permission=BlobSasPermissions(read=True),
        expiry="2099-01-01",
    )
    url = f"{account.url}//{container.name}/ExperimentRun/dcid.j/user_logs/std_log.txt?{token}"
    assert container.http.get(url).content == b"line\n"


def test_data_assets_by_datastore(ml_client: MLClient, tmp_path: Path, name: str) -> None:
    from azure.ai.ml.entities import Data

    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.txt").write_text(name)
    made = ml_client.data.create_or_update(Data(name=name, path=str(tmp_path / "d"), type="uri_folder"))
    from azure.ai.ml._artifacts._artifact_utilities import download_artifact_from_aml_uri

    download_artifact_from_aml_uri(made.path, str(tmp_path / "back"), ml_client.datastores)
    assert (tmp_path / "back" / "x.txt").read_text() == name
