"""The registry ``azureml``: the curated environments, as assets that nobody can change."""

from __future__ import annotations

from noriba.assets.environments import CURATED_REGISTRY
from noriba.environments.catalogue import CuratedEnvironment, curated_environments, find_curated
from noriba.models.asset import Container, Version

SCOPE = f"registry:{CURATED_REGISTRY}"
CREATED_AT = 1_735_689_600.0
"""2025-01-01: the catalogue has no times of its own, and documents need one."""
CREATED_BY = "Noriba"


def find_version(name: str, version: str | None = None) -> Version | None:
    """A version of a curated environment; the latest without ``version``."""
    found = find_curated(name, version)
    return None if found is None else _version(found, name, version or found.latest)


def list_versions(name: str) -> list[Version]:
    """All versions of a curated environment, the latest first; none if there is no such environment."""
    found = find_curated(name)
    return [] if found is None else [_version(found, name, version) for version in reversed(found.versions)]


def find_container(name: str) -> Container | None:
    """A curated environment as the container of its versions."""
    found = find_curated(name)
    return None if found is None else _container(found, name)


def list_containers() -> list[Container]:
    """All curated environments."""
    return [_container(environment, environment.name) for environment in curated_environments()]


def _shown_name(environment: CuratedEnvironment, name: str) -> str:
    """The name that a document carries: the one asked for, which may be one of several."""
    return environment.name if environment.name.lower() == name.lower() else name


def _version(environment: CuratedEnvironment, name: str, version: str) -> Version:
    return Version(
        sequence=int(version) if version.isdecimal() else 0,
        scope=SCOPE,
        kind="environments",
        name=_shown_name(environment, name),
        version=version,
        properties={
            "environmentType": "Curated",
            "image": environment.image,
            "condaFile": environment.conda_file,
            "osType": "Linux",
            "description": environment.description,
            "tags": environment.tags,
            "properties": {},
            "isAnonymous": False,
            "isArchived": False,
        },
        created_at=CREATED_AT,
        created_by=CREATED_BY,
        modified_at=CREATED_AT,
    )


def _container(environment: CuratedEnvironment, name: str) -> Container:
    return Container(
        scope=SCOPE,
        kind="environments",
        name=_shown_name(environment, name),
        properties={"description": environment.description, "tags": environment.tags},
        is_archived=False,
        latest_version=environment.latest,
        next_version=str(int(environment.latest) + 1),
        created_at=CREATED_AT,
        created_by=CREATED_BY,
        modified_at=CREATED_AT,
    )
