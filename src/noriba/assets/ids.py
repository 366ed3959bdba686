"""Ids of assets, and errors about assets that are not there."""

from __future__ import annotations

from noriba.assets.references import AssetReference, WorkspaceName
from noriba.models.asset import Version
from noriba.models.errors import NotFound
from noriba.models.workspace import Workspace

COMMANDS = {"environments": "environment", "models": "model", "components": "component", "codes": "code"}
"""What a kind of asset is called on the command line, where that differs from the kind."""


def workspace_name(workspace: Workspace) -> WorkspaceName:
    """The workspace as resource ids name it."""
    return WorkspaceName(workspace.subscription_id, workspace.resource_group, workspace.name)


def registry_of(scope: str) -> str:
    """The registry's name if the scope is one (``registry:<name>``), else ''."""
    return scope.removeprefix("registry:") if scope.startswith("registry:") else ""


def registry_id(registry: str, kind: str, name: str, version: str) -> str:
    """``azureml://registries/r/data/n/versions/1``."""
    return f"azureml://registries/{registry}/{kind}/{name}/versions/{version}"


def version_id(workspace: Workspace, version: Version) -> str:
    """The id of a version: ``{workspace}/data/n/versions/1``, or the registry form."""
    if registry := registry_of(version.scope):
        return registry_id(registry, version.kind, version.name, version.version)
    return f"{workspace.arm_id}/{version.kind}/{version.name}/versions/{version.version}"


def no_version(kind: str, reference: AssetReference, text: str) -> NotFound:
    """The error for a reference ``text`` to a version that does not exist."""
    where = f"registry '{reference.registry}'" if reference.registry else "the workspace"
    what = COMMANDS.get(kind, kind)
    registry = f" --registry-name {reference.registry}" if reference.registry else ""
    return NotFound(
        f"'{text}' was not found: {where} has no {what} '{reference}'. "
        f"See the existing versions with: noriba {what} list --name {reference.name}{registry}",
        code="AssetNotFound",
        target=text,
    )
