"""Assets on the wire: their ids and documents (wire.md 3)."""

from __future__ import annotations

from typing import Any

import msgspec

from noriba.assets import curated
from noriba.assets.ids import registry_id
from noriba.assets.preparing import with_flavors
from noriba.models.asset import Container, Version
from noriba.models.workspace import Workspace
from noriba.rest.call import Call
from noriba.rest.documents import PROVIDER, system_data


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where assets stand: a workspace, or the registry with that name."""

    scope: str
    workspace: Workspace | None = None
    registry: str = ""

    @property
    def is_curated(self) -> bool:
        """Whether this is the registry that comes with Noriba and that nobody can write to."""
        return self.scope == curated.SCOPE

    def id_of(self, kind: str, name: str, version: str = "") -> str:
        """The id of a container, or of one of its versions."""
        if self.workspace is None:
            identity = registry_id(self.registry, kind, name, version)
            return identity if version else identity.removesuffix("/versions/")
        path = f"{kind}/{name}/versions/{version}" if version else f"{kind}/{name}"
        return f"{self.workspace.arm_id}/{path}"

    def type_of(self, kind: str, *, of_version: bool) -> str:
        """The resource type of a container or version."""
        owner = "registries" if self.workspace is None else "workspaces"
        return f"{PROVIDER}/{owner}/{kind}{'/versions' if of_version else ''}"


async def version_document(
    call: Call, place: Place, version: Version, *, brief: bool = False
) -> dict[str, Any]:
    """A version on the wire. ``brief`` ones (in lists) say of a model only what is known already."""
    properties = version.properties
    kind = version.kind
    if kind == "models":
        if place.workspace is not None and not brief:
            properties = await with_flavors(call.services, place.workspace, version)
        properties = {"flavors": {}, **properties}
    elif kind == "components":
        spec = properties["componentSpec"]
        # An anonymous component keeps the name its author gave it (wire.md 3.6).
        named = {"name": version.name, "version": version.version}
        properties = {
            **properties,
            "componentSpec": {**named, **spec} if version.is_anonymous else {**spec, **named},
        }
    elif kind == "environments":
        properties = {"environmentType": "UserCreated", "osType": "Linux", **properties}
        if "build" in properties:
            properties["build"] = {"dockerfilePath": "Dockerfile", **properties["build"]}
    defaults = {"isAnonymous": False, "isArchived": False, "tags": {}, "properties": {}}
    return {
        "id": place.id_of(kind, version.name, version.version),
        "name": version.version,
        "type": place.type_of(kind, of_version=True),
        "properties": {**defaults, **properties, "provisioningState": "Succeeded"},
        "systemData": system_data(version.created_at, version.created_by, version.modified_at),
    }


def container_document(place: Place, container: Container) -> dict[str, Any]:
    """A container on the wire."""
    return {
        "id": place.id_of(container.kind, container.name),
        "name": container.name,
        "type": place.type_of(container.kind, of_version=False),
        "properties": {
            "description": None,
            "tags": {},
            "properties": {},
            **container.properties,
            "isArchived": container.is_archived,
            "latestVersion": container.latest_version,
            "nextVersion": container.next_version,
            "provisioningState": "Succeeded",
        },
        "systemData": system_data(container.created_at, container.created_by, container.modified_at),
    }
