"""Real clients of Blob Storage against the blob plane: azure-storage-blob (sync and aio) and adlfs."""

from __future__ import annotations

import datetime as dt
import io
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import (
    BlobServiceClient,
    ContainerClient,
    ContainerSasPermissions,
    ContentSettings,
    generate_container_sas,
)
from azure.storage.blob.aio import ContainerClient as AsyncContainerClient

from tests.rest.blob_fixtures import Account, Container, account, container

__all__ = ["account", "container"]
pytestmark = pytest.mark.sdk

SIZES = [0, 1, 4 * 1024 * 1024, 33 * 1024 * 1024 + 1]


@pytest.fixture(params=["sas", "key", "token"])
def client(request: pytest.FixtureRequest, container: Container, account: Account) -> ContainerClient:
    """A ContainerClient with each kind of credential. Small limits make uploads use blocks and downloads ranges."""
    options: dict[str, Any] = {
        "connection_verify": str(account.server.home.bundle_file),
        "max_single_put_size": 8 * 1024 * 1024,
        "max_block_size": 4 * 1024 * 1024,
        "max_single_get_size": 8 * 1024 * 1024,
    }
    if request.param == "sas":
        return ContainerClient.from_container_url(f"{container.url}?{container.token}", **options)
    credential: Any = account.credential
    if request.param == "token":
        secret = account.server.client_environment()["MSI_SECRET"]
        credential = _Credential(account, secret)
    return BlobServiceClient(account.url, credential=credential, **options).get_container_client(
        container.name
    )


class _Credential:
    """Signs in at the managed-identity endpoint, as DefaultAzureCredential does."""

    def __init__(self, account: Account, secret: str) -> None:
        self._account, self._secret = account, secret

    def get_token(self, *scopes: str, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        with self._account.server.client(audience=scopes[0].removesuffix("/.default")) as signed_in:
            token = signed_in.headers["Authorization"].removeprefix("Bearer ")
        return AccessToken(token, int(dt.datetime.now(dt.UTC).timestamp()) + 3600)


@pytest.mark.parametrize("size", SIZES)
def test_upload_and_download(client: ContainerClient, size: int) -> None:
    data = os.urandom(size)
    blob = client.upload_blob(
        "data/x y/ü.bin",
        io.BytesIO(data),
        overwrite=True,
        max_concurrency=4,
        metadata={"upload_status": "completed"},
        content_settings=ContentSettings(content_type="application/x-data", cache_control="no-store"),
    )
    properties = blob.get_blob_properties()
    assert (properties.size, properties.metadata) == (size, {"upload_status": "completed"})
    assert properties.content_settings.content_type == "application/x-data"
    assert properties.content_settings.cache_control == "no-store"
    assert client.download_blob("data/x y/ü.bin", max_concurrency=4).readall() == data
    if size:
        assert client.download_blob("data/x y/ü.bin", offset=size // 2).readall() == data[size // 2 :]


def test_validated_content(client: ContainerClient) -> None:
    data = os.urandom(9 * 1024 * 1024)
    client.upload_blob("x", data, validate_content=True)
    assert client.download_blob("x", validate_content=True).readall() == data


def test_listing_and_walking(client: ContainerClient) -> None:
    names = ["<&>", "a/1", "a/b/2", "c", "weird \x01 name"]
    for name in names:
        client.upload_blob(name, b"1", metadata={"k": "v"})
    listed = {
        blob.name: blob.metadata for blob in client.list_blobs(include=["metadata"], results_per_page=2)
    }
    assert listed == {name: {"k": "v"} for name in names}
    assert sorted(item.name for item in client.walk_blobs(name_starts_with="a/")) == ["a/1", "a/b/"]
    assert list(client.list_blob_names(name_starts_with="a")) == ["a/1", "a/b/2"]


def test_errors_are_the_sdks_own(client: ContainerClient) -> None:
    blob = client.get_blob_client("x")
    with pytest.raises(ResourceNotFoundError):
        blob.download_blob()
    assert not blob.exists()
    blob.upload_blob(b"1")
    with pytest.raises(ResourceExistsError):
        blob.upload_blob(b"2")
    etag = blob.get_blob_properties().etag
    blob.set_blob_metadata({"a": "1"})
    with pytest.raises(ResourceModifiedError):
        blob.upload_blob(b"2", overwrite=True, etag=etag, match_condition=_if_not_modified())
    with pytest.raises(HttpResponseError):
        blob.download_blob(offset=5, length=5)


def _if_not_modified() -> Any:
    from azure.core import MatchConditions

    return MatchConditions.IfNotModified


def test_append_copy_tags_batch(client: ContainerClient) -> None:
    log = client.get_blob_client("log")
    log.create_append_blob()
    log.append_block(b"abc")
    log.append_block(b"def", appendpos_condition=3)
    log.upload_blob(b"ghi", blob_type="AppendBlob")
    assert log.download_blob().readall() == b"abcdefghi"
    copy = client.get_blob_client("copy")
    copy.start_copy_from_url(log.url)
    assert copy.get_blob_properties().size == 9
    copy.set_blob_tags({"a": "b"})
    assert copy.get_blob_tags() == {"a": "b"}
    copy.set_http_headers(ContentSettings(content_type="text/x"))
    assert copy.get_blob_properties().content_settings.content_type == "text/x"
    names = [f"many/{n}" for n in range(30)]
    for name in names:
        client.upload_blob(name, b"")
    assert [answer.status_code for answer in client.delete_blobs(*names)] == [202] * 30
    assert sorted(client.list_blob_names()) == ["copy", "log"]


def test_containers(account: Account) -> None:
    service = BlobServiceClient(
        account.url, credential=account.credential, connection_verify=str(account.server.home.bundle_file)
    )
    name = f"test-{uuid.uuid4().hex}"
    made = service.create_container(name, metadata={"a": "1"})
    with pytest.raises(ResourceExistsError):
        service.create_container(name)
    assert made.get_container_properties().metadata == {"a": "1"}
    made.set_container_metadata({"b": "2"})
    [found] = service.list_containers(name_starts_with=name, include_metadata=True)
    assert (found.name, found.metadata) == (name, {"b": "2"})
    assert made.exists()
    assert service.get_account_information()["account_kind"] == "StorageV2"
    assert service.get_service_properties()["static_website"].enabled is False
    made.delete_container()
    assert not made.exists()
    service.create_container(name).delete_container()


def test_signatures_that_the_sdk_makes(container: Container, account: Account) -> None:
    container.put("x", b"1")
    token = generate_container_sas(
        account.name,
        container.name,
        account_key=account.encoded_key,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1),
    )
    client = ContainerClient.from_container_url(
        f"{container.url}?{token}", connection_verify=str(account.server.home.bundle_file)
    )
    assert list(client.list_blob_names()) == ["x"]
    with pytest.raises(HttpResponseError) as refused:
        client.delete_blob("x")
    assert refused.value.error_code == "AuthorizationPermissionMismatch"


@pytest.mark.parametrize("kind", ["sas", "key"])
async def test_the_asynchronous_client(container: Container, account: Account, kind: str) -> None:
    credential: Any = container.token if kind == "sas" else account.credential
    async with AsyncContainerClient(
        account.url,
        container.name,
        credential=credential,
        connection_verify=str(account.server.home.bundle_file),
        max_single_put_size=1024 * 1024,
        max_block_size=1024 * 1024,
    ) as client:
        data = os.urandom(5 * 1024 * 1024 + 1)
        await client.upload_blob("a b/ü+%.bin", data, max_concurrency=4)
        stream = await client.download_blob("a b/ü+%.bin", max_concurrency=4)
        assert await stream.readall() == data
        assert [blob.name async for blob in client.list_blobs(name_starts_with="a b/")] == ["a b/ü+%.bin"]


@pytest.mark.parametrize("kind", ["sas", "key"])
def test_adlfs(container: Container, account: Account, kind: str, tmp_path: Path) -> None:
    secret = (
        f"SharedAccessSignature={container.token}" if kind == "sas" else f"AccountKey={account.encoded_key}"
    )
    connection = f"BlobEndpoint={account.url};AccountName={account.name};{secret}"
    # In a process of its own: what it trusts is read from the environment when it starts.
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("adlfs_session.py"), connection, container.name, tmp_path],
        env={**os.environ, **account.server.client_environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
