"""From a job's ``environmentId`` to what the environment is made of (wire.md 3.3)."""

from __future__ import annotations

from noriba.assets.ids import no_version, registry_id, version_id
from noriba.assets.references import AssetReference, parse_reference
from noriba.assets.resolving import Resolver
from noriba.environments.catalogue import CuratedEnvironment, find_curated
from noriba.models.asset import ResolvedData, ResolvedEnvironment, Version
from noriba.models.errors import BadRequest
from noriba.models.principal import Principal
from noriba.models.workspace import Workspace
from noriba.services import Services

CURATED_REGISTRY = "azureml"
"""The registry that holds the curated environments."""
CURATED_PREFIX = "azureml-"
"""Workspaces show the curated environments whose names begin so, in any case. Nobody else's may."""


async def resolve_environment(
    services: Services,
    workspace: Workspace,
    environment_id: str,
    *,
    principal: Principal | None = None,
) -> ResolvedEnvironment:
    """What the environment behind ``environment_id`` is made of. Raises BadRequest, NotFound and Forbidden."""
    reference = parse_reference(environment_id)
    if not isinstance(reference, AssetReference) or reference.kind not in ("", "environments"):
        raise BadRequest(
            f"'{environment_id}' is not an environment. Use azureml:<name>:<version>, azureml:<name>@latest or "
            f"azureml://registries/{CURATED_REGISTRY}/environments/<name>/labels/latest.",
            code="InvalidReference",
            target="environmentId",
        )
    resolver = Resolver(services, workspace, environment_id, "uri_folder", principal, kind="environments")
    is_curated = reference.registry.lower() == CURATED_REGISTRY
    found = None if is_curated else await resolver.version(reference, required=False)
    if found is not None:
        return await _of_version(services, workspace, found, principal)
    is_view = not reference.registry and reference.name.lower().startswith(CURATED_PREFIX)
    curated = curated_of(reference) if is_curated or is_view else None
    if curated is None:
        raise no_version("environments", reference, environment_id)
    version = reference.version or curated.latest
    return ResolvedEnvironment(
        name=curated.name,
        version=version,
        curated=curated.name,
        image=curated.image,
        asset_id=registry_id(CURATED_REGISTRY, "environments", curated.name, version),
    )


def curated_of(reference: AssetReference) -> CuratedEnvironment | None:
    """The curated environment that a reference names, if there is one."""
    if reference.label not in ("", "latest"):
        return None
    return find_curated(reference.name, reference.version or "latest")


async def _of_version(
    services: Services, workspace: Workspace, found: Version, principal: Principal | None
) -> ResolvedEnvironment:
    properties = found.properties
    if str(properties.get("osType") or "Linux").lower() != "linux":
        raise BadRequest(
            f"Environment '{found.name}:{found.version}' is for {properties['osType']}; jobs run on Linux.",
            code="UnsupportedEnvironment",
            target="environmentId",
        )
    build = properties.get("build") or {}
    resolver = Resolver(services, workspace, str(build.get("contextUri") or ""), "uri_folder", principal)
    home = await resolver.home_of(found, workspace)
    context: ResolvedData | None = None
    if resolver.text:
        context = await resolver.resolve(home)
    return ResolvedEnvironment(
        name=found.name,
        version=found.version,
        image=properties.get("image"),
        conda_file=properties.get("condaFile"),
        build_context=context,
        dockerfile_path=build.get("dockerfilePath") or "Dockerfile",
        asset_id=version_id(home, found),
    )
