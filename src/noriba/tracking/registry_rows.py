"""Rows of the asset tables as MLflow's registered models and model versions (see registry.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.assets import store
from noriba.database.tables import asset_containers as containers
from noriba.database.tables import asset_versions as version_rows
from noriba.database.tracking_tables import registered_model_aliases as aliases_table
from noriba.models.asset import AssetKind, Container, Version
from noriba.tracking.errors import unknown

KIND: AssetKind = "models"
STAGES = {stage.lower(): stage for stage in ("None", "Staging", "Production", "Archived")}
SOURCE = "mlflow.source"
RUN_LINK = "mlflow.runLink"
MODEL_ID = "mlflow.modelId"
USER_ID = "mlflow.userId"


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """``source`` is as the client gave it, ``uri`` the asset's address (``azureml://…``)."""

    name: str
    version: str
    description: str
    user_id: str
    stage: str
    source: str
    uri: str
    run_id: str
    run_link: str
    model_id: str
    tags: dict[str, str]
    aliases: list[str]
    created_ms: int
    updated_ms: int


class RegisteredModel(msgspec.Struct, frozen=True, kw_only=True):
    """``latest`` has the newest version of each stage."""

    name: str
    description: str
    tags: dict[str, str]
    aliases: dict[str, str]
    latest: list[ModelVersion]
    created_ms: int
    updated_ms: int


def container_of(connection: sa.Connection, workspace_id: str, name: str) -> Container:
    """The asset container of a registered model. Raises NotFound."""
    found = store.find_container(connection, workspace_id, KIND, name)
    if found is None:
        raise unknown(f"Registered Model with name={name} not found")
    return found


def find_version(connection: sa.Connection, workspace_id: str, name: str, version: str) -> Version:
    """The asset version of a model version. Raises NotFound."""
    found = store.find_version(connection, workspace_id, KIND, name, version)
    if found is None:
        raise unknown(f"Model Version (name={name}, version={version}) not found")
    return found


def is_model(table: sa.Table, workspace_id: str, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    """The condition for the rows of one model in the asset tables."""
    return table.c.scope == workspace_id, table.c.kind == KIND, table.c.key == name.lower()


def versions_of(connection: sa.Connection, workspace_id: str, names: list[str] | None) -> list[Version]:
    """Versions that are not archived, of the models with these names (None: of all), in order of creation."""
    statement = sa.select(version_rows).where(
        version_rows.c.scope == workspace_id,
        version_rows.c.kind == KIND,
        version_rows.c.is_archived.is_(False),
        version_rows.c.is_anonymous.is_(False),
    )
    if names is not None and len(names) <= 500:
        statement = statement.where(version_rows.c.key.in_([name.lower() for name in names]))
    return [store.version_of(row) for row in connection.execute(statement.order_by(version_rows.c.sequence))]


def aliases_of(connection: sa.Connection, workspace_id: str, name: str) -> dict[str, str]:
    """The versions that a model's aliases point at."""
    rows = connection.execute(
        sa.select(aliases_table.c.alias, aliases_table.c.version).where(
            aliases_table.c.workspace_id == workspace_id, aliases_table.c.model_key == name.lower()
        )
    )
    return {row.alias: row.version for row in rows}


def set_container(
    connection: sa.Connection, container: Container, properties: dict[str, Any], now: float
) -> None:
    """Replace a container's properties."""
    connection.execute(
        containers.update()
        .where(*is_model(containers, container.scope, container.name))
        .values(properties=properties, modified_at=now)
    )


def set_version(connection: sa.Connection, version: Version, changes: dict[str, Any], now: float) -> None:
    """Change some properties of a version."""
    values: dict[str, Any] = {"properties": {**version.properties, **changes}, "modified_at": now}
    if "stage" in changes:
        values["stage"] = changes["stage"]
    connection.execute(
        version_rows.update().where(version_rows.c.sequence == version.sequence).values(**values)
    )


def changed_tags(tags: Any, key: str, value: str | None) -> dict[str, str]:
    """Tags with one set, or removed (None)."""
    changed = dict(tags or {})
    changed.pop(key, None)
    if value is not None:
        changed[key] = value
    return changed


def stage_of(version: Version) -> str:
    """The stage of a version, as MLflow names it."""
    stage = version.stage or version.properties.get("stage") or "None"
    # Azure ML knows a stage "Development" that MLflow has not.
    return STAGES.get(str(stage).lower(), "None")


def model_version(version: Version, aliases: Mapping[str, str]) -> ModelVersion:
    """An asset version as MLflow's ModelVersion."""
    properties = version.properties
    custom = properties.get("properties") or {}
    uri = str(properties.get("modelUri") or "")
    return ModelVersion(
        name=version.name,
        version=version.version,
        description=str(properties.get("description") or ""),
        user_id=str(custom.get(USER_ID) or version.created_by),
        stage=stage_of(version),
        source=str(custom.get(SOURCE) or uri),
        uri=uri,
        run_id=str(properties.get("jobName") or ""),
        run_link=str(custom.get(RUN_LINK) or ""),
        model_id=str(custom.get(MODEL_ID) or ""),
        tags={str(key): str(value) for key, value in (properties.get("tags") or {}).items()},
        aliases=sorted(alias for alias, target in aliases.items() if target == version.version),
        created_ms=round(version.created_at * 1000),
        updated_ms=round(version.modified_at * 1000),
    )


def registered_models(
    connection: sa.Connection, workspace_id: str, found: list[Container]
) -> list[RegisteredModel]:
    """Asset containers as MLflow's RegisteredModels."""
    latest: dict[str, dict[str, ModelVersion]] = {}
    aliases: dict[str, dict[str, str]] = {}
    for row in connection.execute(
        sa.select(aliases_table).where(aliases_table.c.workspace_id == workspace_id)
    ):
        aliases.setdefault(row.model_key, {})[row.alias] = row.version
    for version in versions_of(connection, workspace_id, [container.name for container in found]):
        key = version.name.lower()
        seen = model_version(version, aliases.get(key, {}))
        # In order of creation: the last of each stage stays.
        latest.setdefault(key, {})[seen.stage] = seen
    return [
        RegisteredModel(
            name=container.name,
            description=str(container.properties.get("description") or ""),
            tags={str(key): str(value) for key, value in (container.properties.get("tags") or {}).items()},
            aliases=aliases.get(container.name.lower(), {}),
            latest=list(latest.get(container.name.lower(), {}).values()),
            created_ms=round(container.created_at * 1000),
            updated_ms=round(container.modified_at * 1000),
        )
        for container in found
    ]
