"""Registries: where they are, and their assets (wire.md 7)."""

from __future__ import annotations

from typing import Any, cast

import sqlalchemy as sa

from noriba.assets import store, uploads
from noriba.assets.environments import CURATED_REGISTRY
from noriba.assets.references import AssetReference, parse_reference
from noriba.assets.sharing import share
from noriba.assets.urls import REGISTRY_ACCOUNT, own_blob
from noriba.database.tables import asset_containers
from noriba.models.asset import AssetKind
from noriba.models.errors import BadRequest, Conflict, Forbidden, NotFound
from noriba.rest.asset_documents import Place
from noriba.rest.assets import asset_routes, upload_slot
from noriba.rest.call import Call
from noriba.rest.documents import PROVIDER
from noriba.rest.operations import accepted, insert_operation, operation_headers
from noriba.rest.router import Routes

routes = Routes()

RESOURCE_GROUP = "registries"
"""The resource group that registries are published under; those of workspaces do not matter here."""
DATA_PLANE = "/regrp/mferp/managementfrontend"
_REGISTRY = f"/subscriptions/{{sub}}/resourceGroups/{{group}}/providers/{PROVIDER}/registries/{{registry}}"


@routes.get("/ty/{host}/registrymanagement/v1.0/registries/{registry}/discovery")
@routes.get("/registrymanagement/v1.0/registries/{registry}/discovery")
async def discovery(call: Call) -> Any:
    """Where the data plane of a registry is (wire.md 7.1)."""
    registry = call.params["registry"]
    await _check_exists(call, registry)
    first = call.services.settings.workspace
    return {
        "registryName": registry.lower(),
        "tenantId": call.principal.tenant_id,
        "registryLocation": first.location,
        "regions": [first.location],
        "primaryRegionResourceProviderUri": f"{call.services.base_url}/regrp/",
        "resourceGroup": RESOURCE_GROUP,
        "subscriptionId": first.subscription_id,
        "managedResourceGroup": RESOURCE_GROUP,
    }


@routes.get(_REGISTRY)
async def get_registry(call: Call) -> Any:
    """A registry as a resource."""
    registry = call.params["registry"]
    await _check_exists(call, registry)
    return _document(call, registry.lower())


@routes.get(f"/subscriptions/{{sub}}/resourceGroups/{{group}}/providers/{PROVIDER}/registries")
@routes.get(f"/subscriptions/{{sub}}/providers/{PROVIDER}/registries")
async def list_registries(call: Call) -> Any:
    """All registries."""

    def read(connection: sa.Connection) -> list[str]:
        scope = asset_containers.c.scope
        statement = sa.select(scope).distinct().where(scope.startswith("registry:"))
        return list(connection.execute(statement.order_by(scope)).scalars())

    _check_role(call, "read")
    scopes = await call.services.database.read(read)
    names = [CURATED_REGISTRY, *(scope.removeprefix("registry:") for scope in scopes)]
    return {"value": [_document(call, name) for name in dict.fromkeys(names)]}


def _document(call: Call, registry: str) -> dict[str, Any]:
    first = call.services.settings.workspace
    group = call.params.get("group", RESOURCE_GROUP)
    path = _REGISTRY.format(sub=first.subscription_id, group=group, registry=registry)
    return {
        "id": path,
        "name": registry,
        "type": f"{PROVIDER}/registries",
        "location": first.location,
        "tags": {},
        "identity": {"type": "SystemAssigned"},
        "properties": {
            "description": "Curated environments" if registry == CURATED_REGISTRY else None,
            "publicNetworkAccess": "Enabled",
            "discoveryUrl": f"{call.services.base_url}/registrymanagement/v1.0/registries/{registry}/discovery",
            "intellectualPropertyPublisher": None,
            "mlFlowRegistryUri": f"azureml://{call.services.host}/mlflow/v1.0{path}",
            "managedResourceGroup": {"resourceId": None},
            "regionDetails": [],
        },
    }


async def registry_place(call: Call) -> Place:
    """The place of a request to a registry. Anybody with a role may read, owners of everything may write."""
    registry = call.params["registry"].lower()
    reads = call.request.method in ("GET", "HEAD")
    _check_role(call, "read" if reads else "write")
    if reads:
        await _check_exists(call, registry)
    return Place(scope=f"registry:{registry}", registry=registry)


@routes.put(f"{DATA_PLANE}{_REGISTRY}/tempdatarefs/{{name}}/versions/{{version}}")
async def upload_slot_of_registry(call: Call) -> Any:
    """Where to upload the files of a version before it is created. Asked for versions without files too."""
    place = await registry_place(call)
    asset_id = str((await call.json()).get("assetId") or "")
    reference = parse_reference(asset_id)
    if not isinstance(reference, AssetReference) or not reference.kind:
        raise BadRequest(
            f"'assetId' must be the id of a version in the registry, not '{asset_id}'.", target="assetId"
        )
    kind, name, version = cast(AssetKind, reference.kind), call.params["name"], call.params["version"]
    existing = await call.services.database.read(
        lambda connection: store.find_version(connection, place.scope, kind, name, version)
    )
    if existing is not None:
        raise Conflict(f"Version '{version}' of '{name}' exists already. Create a new version.", target=name)
    return await upload_slot(call, place, kind, name, version)


@routes.post(f"{DATA_PLANE}{_REGISTRY}/datarefs/{{name}}/versions/{{version}}", action="read")
async def open_files(call: Call) -> Any:
    """What opens the files of a version in a registry for reading."""
    registry = call.params["registry"]
    _check_role(call, "read")
    await _check_exists(call, registry)
    body = await call.json()
    reference = parse_reference(str(body.get("assetId") or ""))
    address = own_blob(str(body.get("blobUri") or ""))
    if not isinstance(reference, AssetReference) or address is None or address.account != REGISTRY_ACCOUNT:
        raise BadRequest(
            "'assetId' and 'blobUri' must be those of a version in the registry.", target="blobUri"
        )
    upload = await uploads.reopen(call.services, f"registry:{registry.lower()}", address.container)
    return {
        "blobReferenceForConsumption": {
            "blobUri": upload.url,
            "credential": {"credentialType": "SAS", "sasUri": f"{upload.url}?{upload.sas}"},
        }
    }


@routes.post(f"{DATA_PLANE}{_REGISTRY}/import")
async def share_from_workspace(call: Call) -> Any:
    """Share a version of a workspace in a registry."""
    _check_role(call, "write")
    registry = call.params["registry"].lower()
    properties = (await call.json()).get("properties")
    if not isinstance(properties, dict):
        raise BadRequest("'properties' must be a JSON object.", target="properties")
    asked = {
        field: properties.get(field) for field in ("sourceAssetId", "destinationName", "destinationVersion")
    }
    for field, value in asked.items():
        if not isinstance(value, str) or not value:
            raise BadRequest(f"'{field}' is missing.", code="ValidationError", target=field)
    source, name, version = (str(value) for value in asked.values())
    await share(call.services, call.principal, source, registry, name, version)
    now, first = call.services.clock(), call.services.settings.workspace
    operation = await call.services.database.write(
        lambda connection: insert_operation(connection, None, now=now)
    )
    headers = operation_headers(call, first.subscription_id, first.location, operation)
    return accepted(202, None, headers)


def _check_role(call: Call, action: str) -> None:
    roles = call.principal.roles
    allowed = bool(roles) if action == "read" else call.principal.may("write", "*")
    if not allowed:
        raise Forbidden(
            f"'{call.principal.name}' has no role that allows this in registries. Ask an administrator for one.",
            target="registry",
        )


async def _check_exists(call: Call, registry: str) -> None:
    if registry.lower() == CURATED_REGISTRY:
        return
    scope = f"registry:{registry.lower()}"
    found = await call.services.database.read(
        lambda connection: connection.execute(
            sa.select(asset_containers.c.scope).where(asset_containers.c.scope == scope).limit(1)
        ).one_or_none()
    )
    if found is None:
        raise NotFound(
            f"There is no registry '{registry}'. The curated environments are in '{CURATED_REGISTRY}'.",
            code="RegistryNotFound",
            target="registry",
        )


asset_routes(routes, DATA_PLANE + _REGISTRY, registry_place)
