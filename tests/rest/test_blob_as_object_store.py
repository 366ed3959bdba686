"""A blob store whose object store is Azure Blob Storage, which is another Noriba: obstore's client over the network."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import AzureStore

from noriba.database import Database
from noriba.database.migrate import upgrade
from noriba.models.errors import NoribaError, Unavailable
from noriba.storage.blobs import BlobStore
from noriba.storage.objects import open_objects
from tests.rest.blob_fixtures import Account, Container, account, container

__all__ = ["account", "container"]


def options(account: Account) -> dict[str, str]:
    """Settings as they stand in ``storage.options``."""
    return {
        "azure_storage_account_name": account.name,
        "azure_storage_account_key": account.encoded_key,
        "azure_storage_endpoint": f"{account.server.url}/blob/{account.name}",
        "client.allow_invalid_certificates": "true",
    }


@pytest.fixture
async def store(container: Container, account: Account, tmp_path: Path) -> AsyncIterator[BlobStore]:
    database = Database(f"sqlite:///{tmp_path}/noriba.db")
    upgrade(database)
    made = BlobStore(database, open_objects(f"az://{container.name}/some/prefix", options(account)))
    await made.ensure_container("acct", "con")
    yield made
    await made.stop()
    database.close()


async def test_blobs_in_a_remote_store(store: BlobStore, container: Container) -> None:
    data = os.urandom(10 * 1024 * 1024 + 7)
    await store.put("acct", "con", "x", data)
    assert await store.read_all("acct", "con", "x") == data
    _, chunks = await store.open("acct", "con", "x", 4_194_300, 8_388_700)
    assert b"".join([chunk async for chunk in chunks]) == data[4_194_300:8_388_700]
    listed = container.request("GET", "", "restype=container&comp=list").text
    assert listed.count("<Blob>") == 3
    assert "<Name>some/prefix/" in listed
    await store.delete("acct", "con", "x")
    store.reading_grace_s = 0
    await store.upkeep.sweep_all()
    assert container.request("GET", "", "restype=container&comp=list").text.count("<Blob>") == 0
    # What is deleted already is no error.
    await store.objects.delete(["00/nothing"])


async def test_a_store_that_does_not_answer(account: Account, container: Container, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/noriba.db")
    upgrade(database)
    wrong = {**options(account), "azure_storage_account_key": "AAAA"}
    store = BlobStore(database, open_objects(f"az://{container.name}", wrong))
    await store.ensure_container("acct", "con")
    await store.put("acct", "con", "small", b"stands in the database")
    with pytest.raises(Unavailable):
        await store.put("acct", "con", "x", b"x" * 100_000)
    assert await store.head("acct", "con", "x") is None
    await store.stop()
    database.close()


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "az://con?x"])
def test_urls_that_are_no_store(url: str) -> None:
    with pytest.raises(NoribaError) as refused:
        open_objects(url, {"nonsense_option": "1"})
    assert refused.value.code == "BadStorageUrl"


@pytest.mark.parametrize("kind", ["key", "sas"])
async def test_obstore_is_a_client_too(account: Account, container: Container, kind: str) -> None:
    secret: dict[str, Any] = (
        {"access_key": account.encoded_key} if kind == "key" else {"sas_token": container.token}
    )
    client = AzureStore(
        container.name,
        account_name=account.name,
        endpoint=f"{account.server.url}/blob/{account.name}",
        client_options={"allow_invalid_certificates": True},
        **secret,
    )
    data = os.urandom(12 * 1024 * 1024)
    await obstore.put_async(client, "dir/ü b.bin", data, use_multipart=True, chunk_size=5 * 1024 * 1024)
    assert bytes(await obstore.get_range_async(client, "dir/ü b.bin", start=5, end=50)) == data[5:50]
    got = await obstore.get_async(client, "dir/ü b.bin")
    assert bytes(await got.bytes_async()) == data
    await obstore.put_async(client, "once", b"1", mode="create")
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        await obstore.put_async(client, "once", b"2", mode="create")
    await obstore.copy_async(client, "once", "twice")
    found = obstore.list_with_delimiter(client)
    assert [item["path"] for item in found["objects"]] == ["once", "twice"]
    assert found["common_prefixes"] == ["dir"]
    assert (await obstore.head_async(client, "dir/ü b.bin"))["size"] == len(data)
    await obstore.delete_async(client, ["once", "twice", "dir/ü b.bin"])
    assert obstore.list_with_delimiter(client)["objects"] == []
    with pytest.raises(FileNotFoundError):
        await obstore.head_async(client, "once")
