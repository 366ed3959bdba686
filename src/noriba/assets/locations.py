"""From resolved data to a Location: an address with just the rights that a node needs (agent/protocol.py)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import msgspec

from noriba import datastores
from noriba.agent.protocol import Location, TaskEnvironment
from noriba.assets.urls import REGISTRY_ACCOUNT, azure_blob
from noriba.models.asset import ResolvedData, ResolvedEnvironment
from noriba.models.errors import BadRequest
from noriba.models.workspace import Workspace
from noriba.services import Services
from noriba.storage import sas

AZURE_SUFFIX = "core.windows.net"
OWN_SUFFIX = "local"
"""What the cloud metadata publishes as storage suffix (wire.md 1.1)."""

_OWN_ACCOUNT = re.compile(r"(?:https?://)?[^/]+/blob/(?P<account>[a-z0-9]+)/?")


async def location_of(
    services: Services,
    workspace: Workspace,
    resolved: ResolvedData,
    permissions: str,
    lifetime_s: float,
) -> Location:
    """How a node reaches the data, with ``permissions`` (``sas.READ``, ``sas.WRITE``) for ``lifetime_s`` seconds.

    ``workspace`` is the job's. Raises NotFound when the datastore is gone, BadRequest when its type or credentials
    can not be used by jobs.
    """
    expires_at = services.clock() + lifetime_s
    if resolved.account:
        return _own(services, resolved.account, resolved.container, resolved, permissions, expires_at)
    if resolved.url:
        return _external(resolved)
    datastore = await services.database.read(
        lambda connection: datastores.get(connection, resolved.workspace_id, resolved.datastore)
    )
    if datastore.is_built_in:
        owner = workspace
        if resolved.workspace_id != workspace.id:
            owner = await services.workspaces.by_id(resolved.workspace_id)
        account = owner.storage_account
        return _own(services, account, datastore.container, resolved, permissions, expires_at)
    return _of_user(services, datastore, resolved, permissions, expires_at)


async def task_environment(
    services: Services, workspace: Workspace, resolved: ResolvedEnvironment, lifetime_s: float
) -> TaskEnvironment:
    """The environment as an agent is told of it; the build context can be read for ``lifetime_s`` seconds."""
    context = None
    if resolved.build_context:
        context = await location_of(services, workspace, resolved.build_context, sas.READ, lifetime_s)
    return TaskEnvironment(
        name=resolved.name,
        version=resolved.version,
        image=resolved.image,
        conda_file=resolved.conda_file,
        curated=resolved.curated,
        build_context=context,
        dockerfile_path=resolved.dockerfile_path,
    )


def own_container_url(base_url: str, account: str, container: str) -> str:
    """The URL of a container of Noriba's own storage (wire.md 2.6)."""
    if account == REGISTRY_ACCOUNT:
        return f"{base_url}/{container}"
    return f"{base_url}/blob/{account}.blob.{OWN_SUFFIX}/{container}"


def own_account(account_name: str) -> str:
    """The account if a datastore's ``accountName`` is one of this server's (``host:port/blob/account``), else ''."""
    match = _OWN_ACCOUNT.fullmatch(account_name)
    return match["account"] if match else ""


def _own(
    services: Services,
    account: str,
    container: str,
    resolved: ResolvedData,
    permissions: str,
    expires_at: float,
) -> Location:
    return Location(
        kind="blob",
        url=own_container_url(services.base_url, account, container),
        path=resolved.path,
        sas=_sas(services.keys.account_key(account), account, container, resolved, permissions, expires_at),
        uri=resolved.uri,
    )


def _sas(
    key: bytes, account: str, container: str, resolved: ResolvedData, permissions: str, expires_at: float
) -> str:
    """The narrowest signature: for the one blob, else for the folder, else (no path) for the container."""
    if not resolved.path:
        return sas.container_sas(key, account, container, permissions, expires_at)
    if resolved.is_folder:
        return sas.directory_sas(key, account, container, resolved.path, permissions, expires_at)
    return sas.blob_sas(key, account, container, resolved.path, permissions, expires_at)


def _external(resolved: ResolvedData) -> Location:
    scheme = resolved.url.partition("://")[0].lower()
    address = azure_blob(resolved.url)
    if address is not None and (resolved.is_folder or scheme not in ("http", "https")):
        return Location(
            kind="blob",
            url=address.container_url,
            path=address.path,
            sas=address.sas,
            uri=resolved.uri,
        )
    if scheme in ("http", "https"):
        return Location(kind="http", url=resolved.url, uri=resolved.uri)
    if scheme in ("s3", "gs", "az"):
        return Location(kind="object_store", url=resolved.url, uri=resolved.uri)
    raise BadRequest(
        f"'{resolved.reference}' does not name a storage account and container. Write for example "
        "wasbs://<container>@<account>.blob.core.windows.net/<path>.",
        code="InvalidReference",
        target=resolved.reference,
    )


def _of_user(
    services: Services,
    datastore: datastores.Datastore,
    resolved: ResolvedData,
    permissions: str,
    expires_at: float,
) -> Location:
    """A datastore that a user added: on this server's storage, or in Azure."""
    container = datastore.container
    account = str(datastore.properties.get("accountName") or "")
    own = own_account(account)
    if datastore.type == "AzureFile" and not own:
        raise BadRequest(
            f"Datastore '{datastore.name}' is a file share in Azure, which jobs can not read yet. "
            "Use a blob container or a Data Lake Storage Gen2 file system.",
            code="UnsupportedDatastoreType",
            target=datastore.name,
        )
    endpoint = str(datastore.properties.get("endpoint") or "").rstrip("/")
    if endpoint in ("", OWN_SUFFIX):
        endpoint = (
            AZURE_SUFFIX  # what the SDK filled in from our metadata says nothing about a foreign account
        )
    url = (
        own_container_url(services.base_url, own, container)
        if own
        else f"https://{account}.blob.{endpoint}/{container}"
    )
    secret = open_secrets(services, datastore)
    token = ""
    match secret.get("secretsType"):
        case "AccountKey":
            key = _decoded_key(secret, datastore.name)
            # Folder signatures need a hierarchical namespace in Azure, which not every account has.
            if own:
                token = _sas(key, own, container, resolved, permissions, expires_at)
            else:
                token = sas.container_sas(key, account, container, permissions, expires_at)
        case "Sas":
            token = str(secret.get("sasToken") or "").lstrip("?")
        case "ServicePrincipal":
            return _with_service_principal(datastore, account, container, resolved, secret)
        case None if own:
            # Without credentials of its own it is read as whoever added it, who was allowed to.
            token = _sas(services.keys.account_key(own), own, container, resolved, permissions, expires_at)
        case None:
            pass
        case other:
            raise BadRequest(
                f"Datastore '{datastore.name}' has credentials of type {other}, which jobs can not use. "
                "Give it an account key, a SAS token or a service principal.",
                code="UnsupportedCredentials",
                target=datastore.name,
            )
    return Location(kind="blob", url=url, path=resolved.path, sas=token, uri=resolved.uri)


def _with_service_principal(
    datastore: datastores.Datastore,
    account: str,
    container: str,
    resolved: ResolvedData,
    secret: dict[str, Any],
) -> Location:
    credentials = datastore.properties.get("credentials") or {}
    return Location(
        kind="object_store",
        url=f"az://{container}/{resolved.path}",
        uri=resolved.uri,
        options={
            "azure_storage_account_name": account,
            "azure_storage_client_id": str(credentials.get("clientId") or ""),
            "azure_storage_tenant_id": str(credentials.get("tenantId") or ""),
            "azure_storage_client_secret": str(secret.get("clientSecret") or ""),
        },
    )


def open_secrets(services: Services, datastore: datastores.Datastore) -> dict[str, Any]:
    """The stored secret of a datastore as on the wire (``secretsType`` …); empty when it has none."""
    if datastore.secrets is None:
        return {}
    value: dict[str, Any] = msgspec.json.decode(services.keys.open(datastore.secrets))
    return value


def _decoded_key(secret: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(str(secret.get("key") or ""), validate=True)
    except binascii.Error as error:
        raise BadRequest(
            f"The account key of datastore '{name}' is not valid base64. Update the datastore with the right key.",
            code="InvalidCredentials",
            target=name,
        ) from error
