"""Datastores through the unmodified SDK."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.entities import (
    AccountKeyConfiguration,
    AzureBlobDatastore,
    AzureDataLakeGen2Datastore,
    AzureFileDatastore,
    Data,
    NoneCredentialConfiguration,
    SasTokenConfiguration,
)
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

pytestmark = pytest.mark.sdk

KEY = base64.b64encode(b"k" * 64).decode()


def test_the_built_in_ones_are_there(ml_client: MLClient) -> None:
    found = {store.name: store for store in ml_client.datastores.list()}
    assert {
        "workspaceblobstore",
        "workspaceartifactstore",
        "workspacefilestore",
        "workspaceworkingdirectory",
    } <= found.keys()
    default = ml_client.datastores.get_default()
    assert default.name == "workspaceblobstore"
    assert default.container_name == "azureml-blobstore"
    assert ml_client.datastores.get("workspaceartifactstore").container_name == "azureml"
    assert ml_client.datastores.get("workspacefilestore").type == "AzureFile"


def test_a_blob_container_with_a_key(ml_client: MLClient, name: str) -> None:
    made = ml_client.datastores.create_or_update(
        AzureBlobDatastore(
            name=name,
            description="d",
            tags={"a": "b"},
            account_name="acct",
            container_name="c",
            endpoint="core.windows.net",
            protocol="https",
            credentials=AccountKeyConfiguration(account_key=KEY),
        )
    )
    assert made.credentials.account_key is None
    found = ml_client.datastores.get(name)
    assert (found.account_name, found.container_name, found.endpoint) == ("acct", "c", "core.windows.net")
    assert (found.description, found.tags) == ("d", {"a": "b"})
    assert found.credentials.account_key is None
    assert ml_client.datastores.get(name, include_secrets=True).credentials.account_key == KEY
    ml_client.datastores.delete(name)
    with pytest.raises(ResourceNotFoundError, match=name):
        ml_client.datastores.get(name)


def test_a_signature_is_kept_secret(ml_client: MLClient, name: str) -> None:
    ml_client.datastores.create_or_update(
        AzureBlobDatastore(
            name=name,
            account_name="acct",
            container_name="c",
            credentials=SasTokenConfiguration(sas_token="sv=1&sig=x"),
        )
    )
    assert ml_client.datastores.get(name).credentials.sas_token is None
    assert ml_client.datastores.get(name, include_secrets=True).credentials.sas_token == "sv=1&sig=x"


def test_other_types_are_kept(ml_client: MLClient, name: str) -> None:
    ml_client.datastores.create_or_update(
        AzureDataLakeGen2Datastore(name=f"{name}_g2", account_name="acct", filesystem="fs")
    )
    ml_client.datastores.create_or_update(
        AzureFileDatastore(
            name=f"{name}_f",
            account_name="acct",
            file_share_name="share",
            credentials=AccountKeyConfiguration(account_key=KEY),
        )
    )
    gen2, share = ml_client.datastores.get(f"{name}_g2"), ml_client.datastores.get(f"{name}_f")
    assert (gen2.type, gen2.filesystem) == ("AzureDataLakeGen2", "fs")
    assert isinstance(gen2.credentials, NoneCredentialConfiguration)
    assert (share.type, share.file_share_name) == ("AzureFile", "share")


def test_the_built_in_ones_stay_what_they_are(ml_client: MLClient) -> None:
    with pytest.raises(ResourceExistsError, match="can not be deleted"):
        ml_client.datastores.delete("workspaceblobstore")
    with pytest.raises(ResourceExistsError, match="pointed elsewhere"):
        ml_client.datastores.create_or_update(
            AzureBlobDatastore(name="workspaceblobstore", account_name="acct", container_name="c")
        )


def test_bad_names_are_refused(ml_client: MLClient) -> None:
    with pytest.raises(HttpResponseError, match="underscores"):
        ml_client.datastores.create_or_update(
            AzureBlobDatastore(name="no-hyphens", account_name="acct", container_name="c")
        )


@pytest.fixture
def own_datastore(ml_client: MLClient, name: str) -> Iterator[str]:
    """A datastore of the user's own on this server's storage."""
    default = ml_client.datastores.get_default()
    ml_client.datastores.create_or_update(
        AzureBlobDatastore(
            name=name,
            account_name=default.account_name,
            container_name="azureml-blobstore",
            endpoint=default.endpoint,
        )
    )
    yield name
    ml_client.datastores.delete(name)


def test_uploads_go_to_the_datastore_that_is_named(
    ml_client: MLClient, own_datastore: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x\n1\n")
    data = Data(name=own_datastore, version="1", path=str(file), type="uri_file", datastore=own_datastore)
    made = ml_client.data.create_or_update(data)
    assert f"/datastores/{own_datastore}/paths/LocalUpload/" in made.path
