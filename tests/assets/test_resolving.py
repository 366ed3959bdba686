"""From references to places, with the rights that nodes get."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from sqlalchemy import Connection

from noriba import datastores
from noriba.assets import versions
from noriba.assets.environments import resolve_environment
from noriba.assets.locations import location_of, own_container_url, task_environment
from noriba.assets.resolving import resolve_code, resolve_data
from noriba.database.tables import jobs
from noriba.models.asset import AssetKind
from noriba.models.errors import BadRequest, Forbidden, NoribaError, NotFound
from noriba.models.principal import Principal
from noriba.models.workspace import Workspace
from noriba.services import Services
from noriba.storage import sas
from noriba.tracking import store as tracking
from tests.assets.conftest import BASE, NOW

HOUR_S = 3600.0


def put(
    services: Services, workspace: Workspace, kind: AssetKind, name: str, properties: dict[str, Any]
) -> None:
    def write(connection: Connection) -> None:
        versions.put_version(connection, workspace.id, kind, name, "1", properties, created_by="me", now=NOW)

    services.database.write_now(write)


def put_job(services: Services, workspace: Workspace, name: str, **values: Any) -> None:
    services.database.write_now(
        lambda connection: connection.execute(
            jobs.insert().values(
                workspace_id=workspace.id,
                name=name,
                kind="Command",
                status="Completed",
                display_name=name,
                experiment="e",
                root=name,
                definition=values.get("definition", {}),
                resolved=values.get("resolved"),
                tags={},
                properties={},
                size="Standard_DS3_v2",
                identity={},
                identity_scope="",
                created_at=NOW,
                created_by="me",
                created_by_name="me",
                status_at=NOW,
                modified_at=NOW,
            )
        )
    )


async def test_a_datastore_path(services: Services, workspace: Workspace) -> None:
    found = await resolve_data(
        services, workspace, "azureml://datastores/WorkspaceBlobStore/paths/a/b.csv", "uri_file"
    )
    assert (found.datastore, found.path, found.is_folder) == ("workspaceblobstore", "a/b.csv", False)
    assert found.uri == (
        "azureml://subscriptions/sub/resourcegroups/group/workspaces/first"
        "/datastores/workspaceblobstore/paths/a/b.csv"
    )
    location = await location_of(services, workspace, found, sas.READ, HOUR_S)
    assert location.kind == "blob"
    assert location.url == own_container_url(BASE, workspace.storage_account, "azureml-blobstore")
    assert location.path == "a/b.csv"
    assert "sr=b" in location.sas
    assert "sp=rl" in location.sas


async def test_a_folder_gets_a_signature_for_the_folder(services: Services, workspace: Workspace) -> None:
    found = await resolve_data(
        services, workspace, "azureml://datastores/workspaceartifactstore/paths/a/b", "uri_folder"
    )
    location = await location_of(services, workspace, found, sas.WRITE, HOUR_S)
    assert location.path == "a/b/"
    assert "sr=d" in location.sas
    assert "sdd=2" in location.sas


@pytest.mark.parametrize("reference", ["azureml:d:1", "azureml:d@latest", "azureml:azureml:d@latest", "d:1"])
async def test_data_by_name(services: Services, workspace: Workspace, reference: str) -> None:
    put(
        services,
        workspace,
        "data",
        "d",
        {"dataType": "uri_folder", "dataUri": "azureml://datastores/workspaceblobstore/paths/x/"},
    )
    found = await resolve_data(services, workspace, reference, "uri_folder")
    assert (found.reference, found.path) == (reference, "x/")
    assert found.asset_id == f"{workspace.arm_id}/data/d/versions/1"


async def test_names_mean_models_where_models_are_wanted(services: Services, workspace: Workspace) -> None:
    at = "azureml://datastores/workspaceblobstore/paths/"
    put(services, workspace, "data", "x", {"dataType": "uri_folder", "dataUri": at + "data/"})
    put(services, workspace, "models", "x", {"modelType": "mlflow_model", "modelUri": at + "model"})
    assert (await resolve_data(services, workspace, "azureml:x:1", "mlflow_model")).path == "model/"
    assert (await resolve_data(services, workspace, "azureml:x:1", "uri_folder")).path == "data/"


async def test_a_custom_model_is_what_is_there(services: Services, workspace: Workspace) -> None:
    account = workspace.storage_account
    await services.blobs.put(account, "azureml-blobstore", "m/file", b"1")
    await services.blobs.put(account, "azureml-blobstore", "m/folder.d/part", b"1")
    at = "azureml://datastores/workspaceblobstore/paths/m/"
    assert not (await resolve_data(services, workspace, at + "file", "custom_model")).is_folder
    folder = await resolve_data(services, workspace, at + "folder.d", "custom_model")
    assert (folder.is_folder, folder.path) == (True, "m/folder.d/")


async def test_outputs_of_jobs(services: Services, workspace: Workspace) -> None:
    put_job(
        services,
        workspace,
        "j",
        definition={
            "outputs": {
                "plain": {"jobOutputType": "uri_folder"},
                "file": {"jobOutputType": "uri_file"},
                "placed": {
                    "jobOutputType": "uri_folder",
                    "uri": "azureml://datastores/workspaceblobstore/paths/mine/",
                },
                "resolved": {"jobOutputType": "mlflow_model"},
            }
        },
        resolved={
            "outputs": {"resolved": {"data": {"uri": "azureml://datastores/workspaceblobstore/paths/there/"}}}
        },
    )

    async def path(reference: str, type: str = "uri_folder") -> tuple[str, str]:
        found = await resolve_data(services, workspace, reference, type)
        return found.datastore, found.path

    blobs, artifacts = "workspaceblobstore", "workspaceartifactstore"
    assert await path("azureml://jobs/j/outputs/plain") == (blobs, "azureml/j/plain/")
    assert await path("azureml://jobs/j/outputs/plain/paths/a/b") == (blobs, "azureml/j/plain/a/b/")
    assert await path("azureml://jobs/j/outputs/file", "uri_file") == (blobs, "azureml/j/file")
    assert await path("azureml://jobs/j/outputs/placed/paths/x.csv", "uri_file") == (blobs, "mine/x.csv")
    assert await path("azureml://jobs/j/outputs/resolved", "mlflow_model") == (blobs, "there/")
    assert await path("azureml://jobs/j/outputs/artifacts/paths/model/", "mlflow_model") == (
        artifacts,
        "ExperimentRun/dcid.j/model/",
    )
    assert await path("runs:/j/model", "mlflow_model") == (artifacts, "ExperimentRun/dcid.j/model/")


async def test_artifacts_of_runs_that_are_no_jobs(services: Services, workspace: Workspace) -> None:
    services.database.write_now(
        lambda connection: tracking.create_run_in(
            connection,
            workspace_id=workspace.id,
            run_id="r1",
            experiment_name="e",
            run_name="r1",
            user_id="me",
            start_time=NOW,
            tags={},
        )
    )
    for reference in ("runs:/r1/model", "azureml://jobs/r1/outputs/artifacts/paths/model"):
        found = await resolve_data(services, workspace, reference, "mlflow_model")
        assert found.path == "ExperimentRun/dcid.r1/model/"


async def test_code_has_a_container_of_its_own(services: Services, workspace: Workspace) -> None:
    uri = f"{BASE}/blob/{workspace.storage_account}.blob.local/c1/src"
    put(services, workspace, "codes", "c", {"codeUri": uri})
    found = await resolve_code(services, workspace, f"azureml:{workspace.arm_id}/codes/c/versions/1")
    assert (found.account, found.container, found.path) == (workspace.storage_account, "c1", "src/")
    location = await location_of(services, workspace, found, sas.READ, HOUR_S)
    assert location.url == own_container_url(BASE, workspace.storage_account, "c1")


async def test_addresses_elsewhere(services: Services, workspace: Workspace) -> None:
    async def location(uri: str, type: str) -> Any:
        found = await resolve_data(services, workspace, uri, type)
        return await location_of(services, workspace, found, sas.READ, HOUR_S)

    web = await location("https://example.com/a.csv?token=1", "uri_file")
    assert (web.kind, web.url) == ("http", "https://example.com/a.csv?token=1")
    azure = await location("https://acct.blob.core.windows.net/c/folder?sv=1&sig=x", "uri_folder")
    assert (azure.kind, azure.url) == ("blob", "https://acct.blob.core.windows.net/c")
    assert (azure.path, azure.sas) == ("folder", "sv=1&sig=x")
    wasbs = await location("wasbs://c@acct.blob.core.windows.net/a.csv", "uri_file")
    assert (wasbs.kind, wasbs.url, wasbs.path) == ("blob", "https://acct.blob.core.windows.net/c", "a.csv")
    s3 = await location("s3://bucket/a/", "uri_folder")
    assert (s3.kind, s3.url) == ("object_store", "s3://bucket/a/")


async def put_datastore(services: Services, workspace: Workspace, **values: Any) -> None:
    secrets = values.pop("secrets", None)
    sealed = None if secrets is None else services.keys.seal(secrets)
    properties = {"datastoreType": "AzureBlob", "accountName": "acct", "containerName": "c", **values}
    await services.database.write(
        lambda connection: datastores.put(
            connection, workspace.id, "mine", properties, sealed, is_default=False, created_by="me", now=NOW
        )
    )


async def test_datastores_of_users(services: Services, workspace: Workspace) -> None:
    async def location() -> Any:
        found = await resolve_data(services, workspace, "azureml://datastores/mine/paths/x/", "uri_folder")
        return await location_of(services, workspace, found, sas.READ, HOUR_S)

    key = base64.b64encode(b"k" * 64)
    await put_datastore(
        services, workspace, endpoint="local/", secrets=b'{"secretsType":"AccountKey","key":"' + key + b'"}'
    )
    by_key = await location()
    assert (by_key.kind, by_key.url) == ("blob", "https://acct.blob.core.windows.net/c")
    assert "sr=c" in by_key.sas
    await put_datastore(services, workspace, secrets=b'{"secretsType":"Sas","sasToken":"?sig=x"}')
    assert (await location()).sas == "sig=x"
    await put_datastore(
        services,
        workspace,
        datastoreType="AzureDataLakeGen2",
        filesystem="fs",
        credentials={"credentialsType": "ServicePrincipal", "clientId": "i", "tenantId": "t"},
        secrets=b'{"secretsType":"ServicePrincipal","clientSecret":"s"}',
    )
    by_principal = await location()
    assert (by_principal.kind, by_principal.url) == ("object_store", "az://fs/x/")
    assert by_principal.options["azure_storage_client_secret"] == "s"


@pytest.mark.parametrize(
    ("uri", "type", "error", "words"),
    [
        ("azureml://datastores/nowhere/paths/x", "uri_file", NotFound, "datastore 'nowhere'"),
        ("azureml:nothing:1", "uri_file", NotFound, "noriba data list"),
        ("azureml:nothing:1", "mlflow_model", NotFound, "noriba model list"),
        ("azureml://jobs/nojob/outputs/o", "uri_folder", NotFound, "job 'nojob'"),
        ("runs:/norun/model", "mlflow_model", NotFound, "'norun'"),
        ("azureml://jobs/j/outputs/nope", "uri_folder", NotFound, "It has: out, artifacts"),
        ("https://example.com/folder", "uri_folder", BadRequest, "Use type uri_file"),
        ("file:///etc/passwd", "uri_file", BadRequest, "one machine"),
        ("adl://x.azuredatalakestore.net/a", "uri_file", BadRequest, "retired"),
        ("azureml://jobs/j/outputs/out", "uri_file", BadRequest, "uri_folder"),
        ("azureml://datastores/workspaceblobstore/paths/x/", "uri_file", BadRequest, "uri_folder"),
        ("azureml:x:1", "parquet", BadRequest, "uri_file, uri_folder"),
    ],
)
async def test_what_leads_nowhere_is_told(
    services: Services,
    workspace: Workspace,
    uri: str,
    type: str,
    error: type[NoribaError],
    words: str,
) -> None:
    put_job(services, workspace, "j", definition={"outputs": {"out": {"jobOutputType": "uri_folder"}}})
    with pytest.raises(error) as caught:
        await resolve_data(services, workspace, uri, type)
    assert words in caught.value.message
    assert uri in caught.value.message or type == "parquet"


async def test_references_in_a_circle_end(services: Services, workspace: Workspace) -> None:
    put(services, workspace, "data", "a", {"dataType": "uri_folder", "dataUri": "azureml:b:1"})
    put(services, workspace, "data", "b", {"dataType": "uri_folder", "dataUri": "azureml:a:1"})
    with pytest.raises(BadRequest, match="leads through more than"):
        await resolve_data(services, workspace, "azureml:a:1", "uri_folder")


# --- other workspaces


def foreign_references(other: Workspace) -> list[str]:
    long = "azureml://subscriptions/sub/resourcegroups/group/workspaces/second"
    return [
        f"{long}/datastores/workspaceblobstore/paths/x/",
        f"{other.arm_id}/data/d/versions/1",
        f"azureml://locations/local/workspaces/{other.id}/data/d/versions/1",
        f"{BASE}/blob/{other.storage_account}.blob.local/azureml-blobstore/x/",
        f"https://{other.storage_account}.blob.core.windows.net/azureml-blobstore/x/",
        "azureml:pointer:1",
    ]


@pytest.mark.parametrize("number", range(6))
async def test_other_workspaces_are_for_those_with_a_role_there(
    services: Services, workspace: Workspace, other: Workspace, reader_of_both: Principal, number: int
) -> None:
    at = "azureml://datastores/workspaceblobstore/paths/x/"
    put(services, other, "data", "d", {"dataType": "uri_folder", "dataUri": at})
    # An asset of one's own that points into the other workspace opens nothing.
    blob = f"{BASE}/blob/{other.storage_account}.blob.local/azureml-blobstore/x/"
    put(services, workspace, "data", "pointer", {"dataType": "uri_folder", "dataUri": blob})
    reference = foreign_references(other)[number]
    stranger = Principal(id="s", kind="user", name="s", tenant_id="t", roles={workspace.id: "Owner"})
    for principal in (None, stranger):
        with pytest.raises(Forbidden, match="second"):
            await resolve_data(services, workspace, reference, "uri_folder", principal=principal)
    found = await resolve_data(services, workspace, reference, "uri_folder", principal=reader_of_both)
    location = await location_of(services, workspace, found, sas.READ, HOUR_S)
    assert location.url == own_container_url(BASE, other.storage_account, "azureml-blobstore")
    assert location.path == "x/"


# --- environments


@pytest.mark.parametrize(
    "reference",
    [
        "azureml://registries/azureml/environments/sklearn-1.5/labels/latest",
        "azureml://registries/azureml/environments/sklearn-1.5/versions/7",
        "azureml:AzureML-sklearn-1.5@latest",
        "azureml:AzureML-sklearn-1.5:2",
    ],
)
async def test_curated_environments(services: Services, workspace: Workspace, reference: str) -> None:
    found = await resolve_environment(services, workspace, reference)
    assert found.curated == "sklearn-1.5"
    assert (await task_environment(services, workspace, found, HOUR_S)).curated == "sklearn-1.5"


async def test_environments_of_the_workspace(services: Services, workspace: Workspace) -> None:
    put(services, workspace, "environments", "e", {"image": "python:3.11", "condaFile": "dependencies: []"})
    for reference in (
        "azureml:e:1",
        "azureml:e@latest",
        f"{workspace.arm_id}/environments/azureml:e/versions/1",
    ):
        found = await resolve_environment(services, workspace, reference)
        assert (found.image, found.conda_file) == ("python:3.11", "dependencies: []")
        assert found.asset_id == f"{workspace.arm_id}/environments/e/versions/1"


async def test_a_build_context_is_readable(services: Services, workspace: Workspace) -> None:
    context = f"{BASE}/blob/{workspace.storage_account}.blob.local/azureml-blobstore/LocalUpload/h/ctx/"
    put(
        services,
        workspace,
        "environments",
        "b",
        {"build": {"contextUri": context, "dockerfilePath": "docker/Dockerfile"}},
    )
    found = await resolve_environment(services, workspace, "azureml:b:1")
    asked = await task_environment(services, workspace, found, HOUR_S)
    assert asked.dockerfile_path == "docker/Dockerfile"
    assert asked.build_context is not None
    assert asked.build_context.path == "LocalUpload/h/ctx/"
    assert "sp=rl" in asked.build_context.sas


@pytest.mark.parametrize(
    ("reference", "error", "words"),
    [
        ("azureml:none:1", NotFound, "noriba environment list"),
        ("azureml://registries/azureml/environments/none/labels/latest", NotFound, "registry 'azureml'"),
        ("azureml://registries/azureml/environments/sklearn-1.5/labels/stable", NotFound, "stable"),
        ("azureml:sklearn-1.5@latest", NotFound, "sklearn-1.5"),
        ("azureml:AzureML-none@latest", NotFound, "AzureML-none"),
        ("azureml://datastores/d/paths/x", BadRequest, "is not an environment"),
        ("azureml:windows:1", BadRequest, "run on Linux"),
    ],
)
async def test_environments_that_can_not_be_had(
    services: Services, workspace: Workspace, reference: str, error: type[NoribaError], words: str
) -> None:
    put(services, workspace, "environments", "windows", {"image": "i", "osType": "Windows"})
    with pytest.raises(error) as caught:
        await resolve_environment(services, workspace, reference)
    assert words in caught.value.message
