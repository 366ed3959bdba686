"""Versioned assets over the API: environments, data, models, components, codes (wire.md 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from noriba.client.errors import ApiError
from noriba.client.session import Session


class Assets:
    """The assets of one kind (``environments``, ``data`` …) in the workspace, or in a registry."""

    def __init__(self, session: Session, plural: str, registry: str | None = None) -> None:
        self._session = session
        self._plural = plural
        self._base = f"{_registry_path(session, registry) if registry else session.workspace}/{plural}"

    def list(self, name: str | None, *, view: str = "ActiveOnly", stage: str | None = None) -> Iterator[Any]:
        """Containers, or the versions of one, newest first."""
        if name is None:
            return self._session.pages(self._base, query={"listViewType": view})
        query = {"listViewType": view, "stage": stage, "$orderBy": "createdtime desc"}
        return self._session.pages(f"{self._base}/{name}/versions", query=query)

    def get(self, name: str, version: str | None, label: str | None) -> Any:
        """A version; the latest without one. Raises ApiError."""
        return self._session.get(self._path(name, version or self._latest(name, label)))

    def set_archived(self, name: str, version: str | None, label: str | None, archived: bool) -> None:
        """Hide or show a version, or all versions of a name when none is given."""
        if version or label:
            path = self._path(name, version or self._latest(name, label))
        else:
            path = f"{self._base}/{name}"
        document = self._session.get(path)
        properties = {**document["properties"], "isArchived": archived}
        self._session.call("PUT", path, json={"properties": properties})

    def update(self, name: str, version: str | None, label: str | None, changes: dict[str, Any]) -> Any:
        """Change what may change of a version: ``tags`` and ``properties`` merge, the rest is replaced."""
        path = self._path(name, version or self._latest(name, label))
        properties = dict(self._session.get(path)["properties"])
        for field, value in changes.items():
            properties[field] = (
                {**(properties.get(field) or {}), **value} if isinstance(value, dict) else value
            )
        return self._session.call("PUT", path, json={"properties": properties}).json()

    def _path(self, name: str, version: str) -> str:
        return f"{self._base}/{name}/versions/{version}"

    def _latest(self, name: str, label: str | None) -> str:
        if label not in (None, "latest", "default"):
            raise ApiError(
                404, "LabelNotFound", f"'{name}' has no label '{label}'. There is: latest.", "label"
            )
        newest = self._session.get(
            f"{self._base}/{name}/versions", query={"$orderBy": "createdtime desc", "$top": 1}
        )
        if not newest.get("value"):
            raise ApiError(
                404, "ResourceNotFound", f"There is nothing named '{name}' among the {self._plural}.", "name"
            )
        return str(newest["value"][0]["name"])


def _registry_path(session: Session, registry: str) -> str:
    """Path of a registry's resources, found by discovery as the SDK does (wire.md 7.1)."""
    found = session.get(f"/registrymanagement/v1.0/registries/{registry}/discovery")
    base = str(found["primaryRegionResourceProviderUri"]) + "mferp/managementfrontend"
    place = f"subscriptions/{found['subscriptionId']}/resourceGroups/{found['resourceGroup']}"
    return f"{base}/{place}/providers/Microsoft.MachineLearningServices/registries/{found['registryName']}"
