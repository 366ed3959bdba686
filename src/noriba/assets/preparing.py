"""Making a version's properties fit to be stored: where its data is, in the form that is kept; model flavors."""

from __future__ import annotations

from typing import Any

import yaml

from noriba import datastores
from noriba.assets import store, versions
from noriba.assets.locations import own_account
from noriba.assets.references import UrlReference, parse_reference
from noriba.assets.resolving import Resolver
from noriba.assets.urls import BlobAddress, in_azure
from noriba.models.asset import AssetKind, DataType, ResolvedData, Version
from noriba.models.errors import NoribaError
from noriba.models.principal import Principal
from noriba.models.workspace import Workspace
from noriba.services import Services

MLMODEL_LIMIT_BYTES = 1024 * 1024


async def prepare(
    services: Services,
    workspace: Workspace,
    principal: Principal,
    kind: AssetKind,
    properties: dict[str, Any],
) -> dict[str, Any]:
    """Checked ``properties`` with the address of the data in the form that is kept and shown.

    References lead to the datastore path they stand for, so that a model made from a job's output stays what it is.
    Raises BadRequest, NotFound and Forbidden when the address leads nowhere that the caller may read.
    """
    if kind == "codes":
        found = await _resolve(services, workspace, principal, properties["codeUri"], "uri_folder")
        return {**properties, "codeUri": _code_address(found)}
    if kind == "data":
        data_type = properties["dataType"]
        found = await _resolve(services, workspace, principal, properties["dataUri"], data_type)
        uri = found.uri
        if found.is_folder and "?" not in uri:
            uri = uri.rstrip("/") + "/"
        return {**properties, "dataUri": uri}
    if kind == "models":
        wanted: DataType = "custom_model"
        if properties["modelType"] in ("mlflow_model", "triton_model"):
            wanted = properties["modelType"]
        found = await _resolve(services, workspace, principal, properties["modelUri"], wanted)
        return {**properties, "modelUri": found.uri.rstrip("/")}
    return properties


async def _resolve(
    services: Services, workspace: Workspace, principal: Principal, uri: str, wanted: DataType
) -> ResolvedData:
    return await Resolver(services, workspace, uri, wanted, principal, to_read=False).resolve()


def _code_address(found: ResolvedData) -> str:
    if not found.account:
        return found.uri
    address = BlobAddress(account=found.account, container=found.container, path=found.path.rstrip("/"))
    return in_azure(address)


async def with_flavors(services: Services, workspace: Workspace, version: Version) -> dict[str, Any]:
    """A model's properties with ``flavors``, which are read from its MLmodel file when they are not known yet."""
    properties = version.properties
    if properties.get("flavors") or properties.get("modelType") != "mlflow_model":
        return properties
    flavors = await _read_flavors(services, workspace, version)
    if not flavors:
        return properties
    found = {"flavors": flavors}

    def write(connection: Any) -> None:
        current = store.find_version(connection, version.scope, "models", version.name, version.version)
        if current is not None and not current.properties.get("flavors"):
            versions.fill_properties(connection, current, found)

    await services.database.write(write)
    return {**properties, **found}


async def _read_flavors(services: Services, workspace: Workspace, version: Version) -> dict[str, Any]:
    uri = str(version.properties.get("modelUri") or "")
    try:
        if isinstance(parse_reference(uri), UrlReference):
            return {}
        found = await Resolver(services, workspace, uri, "mlflow_model", None).resolve()
        place = await own_place(services, found)
        if place is None:
            return {}
        properties, content = await services.blobs.open(*place, f"{found.path}MLmodel")
    except NoribaError:
        # The model may not be uploaded yet, or stand where this server can not read: it has no flavors so far.
        return {}
    if properties.size > MLMODEL_LIMIT_BYTES:
        return {}
    text = b"".join([part async for part in content])
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    declared = document.get("flavors") if isinstance(document, dict) else None
    if not isinstance(declared, dict):
        return {}
    return {
        str(name): {"data": {str(key): str(value) for key, value in (flavor or {}).items()}}
        for name, flavor in declared.items()
        if isinstance(flavor, dict)
    }


async def own_place(services: Services, found: ResolvedData) -> tuple[str, str] | None:
    """The (account, container) of this server's own storage that data is in; None for data elsewhere."""
    if found.account:
        return found.account, found.container
    if not found.datastore:
        return None
    datastore = await services.database.read(
        lambda connection: datastores.get(connection, found.workspace_id, found.datastore)
    )
    if datastore.is_built_in:
        owner = await services.workspaces.by_id(found.workspace_id)
        return owner.storage_account, datastore.container
    own = own_account(str(datastore.properties.get("accountName") or ""))
    return (own, datastore.container) if own else None
