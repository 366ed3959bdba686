"""Sharing assets of a workspace in a registry: the document and a copy of the files."""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa

from noriba.assets import documents, uploads, versions
from noriba.assets.environments import CURATED_REGISTRY
from noriba.assets.ids import workspace_name
from noriba.assets.preparing import own_place, with_flavors
from noriba.assets.references import AssetReference, parse_reference
from noriba.assets.resolving import Resolver
from noriba.assets.urls import REGISTRY_ACCOUNT
from noriba.models.asset import DataType, ResolvedData, Version
from noriba.models.errors import BadRequest, Forbidden
from noriba.models.principal import Principal
from noriba.models.workspace import Workspace
from noriba.services import Services
from noriba.storage import editing

SHAREABLE = ("data", "models", "environments")


async def share(
    services: Services, principal: Principal, source_id: str, registry: str, name: str, version: str
) -> Version:
    """Make the version with the id ``source_id`` a version of a registry. Doing it again changes nothing.

    Raises BadRequest (what can not be shared), NotFound, Forbidden (no role in its workspace), Conflict (the
    registry has another such version).
    """
    if registry == CURATED_REGISTRY:
        raise Forbidden(f"Registry '{registry}' can not be changed.", code="RegistryReadOnly")
    source, home = await _find(services, principal, source_id)
    properties = dict(source.properties)
    if source.kind == "models":
        properties = dict(await with_flavors(services, home, source))
    for field, wanted in _addresses(source):
        resolver = Resolver(services, home, _get(properties, field), wanted, principal, to_read=False)
        found = await resolver.resolve()
        _set(properties, field, await _copy(services, found, source, registry, name, version))
    checked = documents.check_properties(source.kind, name, version, {"properties": properties})
    scope, now = f"registry:{registry}", services.clock()

    def write(connection: sa.Connection) -> Version:
        made, _ = versions.put_version(
            connection, scope, source.kind, name, version, checked, created_by=principal.name, now=now
        )
        return made

    return await services.database.write(write)


async def _find(services: Services, principal: Principal, source_id: str) -> tuple[Version, Workspace]:
    reference = parse_reference(source_id)
    if not isinstance(reference, AssetReference) or not (reference.workspace_id or reference.workspace):
        raise BadRequest(
            f"'{source_id}' is not the id of a version in a workspace.",
            code="InvalidReference",
            target=source_id,
        )
    if reference.kind not in SHAREABLE:
        raise BadRequest(
            f"Assets of kind '{reference.kind}' can not be shared; {', '.join(SHAREABLE)} can.",
            code="NotSupported",
            target=source_id,
        )
    if reference.workspace_id:
        home = await services.workspaces.by_id(reference.workspace_id)
    else:
        place = reference.workspace
        assert place is not None
        home = await services.workspaces.find(place.subscription_id, place.resource_group, place.name)
    if not principal.may("read", home.id):
        raise Forbidden(
            f"'{source_id}' is in a workspace that you have no role in.", target=workspace_name(home).name
        )
    found = await Resolver(services, home, source_id, "uri_folder", principal).version(reference)
    assert found is not None
    return found, home


def _addresses(source: Version) -> list[tuple[str, DataType]]:
    """Which fields of a version hold the address of files, and what those are."""
    properties = source.properties
    if source.kind == "data":
        return [("dataUri", properties["dataType"])]
    if source.kind == "models":
        kind = properties["modelType"]
        return [("modelUri", kind if kind in ("mlflow_model", "triton_model") else "custom_model")]
    return [("build.contextUri", "uri_folder")] if properties.get("build") else []


async def _copy(
    services: Services, found: ResolvedData, source: Version, registry: str, name: str, version: str
) -> str:
    """Copy files to the registry's storage; returns their address there. Files elsewhere stay where they are."""
    place = await own_place(services, found)
    if place is None:
        if found.url:
            return found.url
        raise BadRequest(
            f"The files of '{source.name}:{source.version}' are in datastore '{found.datastore}', which only its "
            "workspace can open. Upload them to the default datastore to share them.",
            code="NotSupported",
        )
    slot = await uploads.start(services, f"registry:{registry}", REGISTRY_ACCOUNT, source.kind, name, version)
    # Sharing something else as the same version must not touch the files of what is there.
    where = hashlib.sha256(found.uri.encode()).hexdigest()[:16]
    base = f"{where}/{found.path.rstrip('/').rpartition('/')[2] or 'files'}"
    if not found.is_folder:
        await editing.copy(services.blobs, (*place, found.path), (REGISTRY_ACCOUNT, slot.id, base))
        return f"{slot.url}/{base}"
    marker: str | None = None
    while True:
        page = await services.blobs.list(*place, found.path, marker=marker)
        for blob in page.blobs:
            target = f"{base}/{blob.name.removeprefix(found.path)}"
            await editing.copy(services.blobs, (*place, blob.name), (REGISTRY_ACCOUNT, slot.id, target))
        marker = page.marker
        if marker is None:
            return f"{slot.url}/{base}/"


def _get(properties: dict[str, Any], field: str) -> str:
    outer, _, inner = field.partition(".")
    return str(properties[outer][inner] if inner else properties[outer])


def _set(properties: dict[str, Any], field: str, value: str) -> None:
    outer, _, inner = field.partition(".")
    properties[outer] = {**properties[outer], inner: value} if inner else value
