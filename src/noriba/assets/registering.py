"""Register what a job made: an output becomes a version of a data asset or a model."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from noriba.assets import store
from noriba.database.tables import asset_containers, asset_versions
from noriba.models.asset import AssetKind
from noriba.models.errors import Conflict


def register_output_in(
    connection: sa.Connection,
    *,
    scope: str,
    name: str,
    version: str | None,
    type: str,
    uri: str,
    job: str,
    output: str,
    created_by: str,
    now: float,
) -> str:
    """Inside a write: register an output; returns the version (the next number when none is given).

    Doing it again for the same data changes nothing. Raises Conflict when the version holds something else.
    """
    is_model = type.endswith("_model")
    kind: AssetKind = "models" if is_model else "data"
    field = "modelUri" if is_model else "dataUri"
    container = store.find_container(connection, scope, kind, name)
    version = version or (container.next_version if container else "1")
    existing = store.find_version(connection, scope, kind, name, version)
    if existing is not None:
        if existing.properties.get(field) == uri:
            return version
        raise Conflict(
            f"'{name}:{version}' exists already and holds other data. Leave the version out, or name one that is free."
        )
    number = int(version) if version.isdigit() else 0
    if container is None:
        connection.execute(
            asset_containers.insert().values(
                scope=scope,
                kind=kind,
                key=name.lower(),
                name=name,
                properties={} if is_model else {"dataType": type},
                is_archived=False,
                latest_version=version,
                highest_number=number,
                created_at=now,
                created_by=created_by,
                modified_at=now,
            )
        )
    else:
        connection.execute(
            asset_containers.update()
            .where(
                asset_containers.c.scope == scope,
                asset_containers.c.kind == kind,
                asset_containers.c.key == name.lower(),
            )
            .values(
                latest_version=version,
                highest_number=sa.case(
                    (asset_containers.c.highest_number > number, asset_containers.c.highest_number),
                    else_=number,
                ),
                modified_at=now,
            )
        )
    properties: dict[str, Any] = {
        field: uri,
        ("modelType" if is_model else "dataType"): type,
        "isAnonymous": False,
        "isArchived": False,
        "description": None,
        "tags": {},
        "properties": {"azureml.jobName": job, "azureml.outputName": output},
    }
    if is_model:
        properties.update(jobName=job, flavors={})
    connection.execute(
        asset_versions.insert().values(
            scope=scope,
            kind=kind,
            key=name.lower(),
            name=name,
            version=version,
            properties=properties,
            is_archived=False,
            is_anonymous=False,
            created_at=now,
            created_by=created_by,
            modified_at=now,
        )
    )
    return version
