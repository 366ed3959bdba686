"""MLflow's model registry: the workspace's model assets, seen as MLflow sees them.

A registered model is a model asset's container, a model version its version; so what a job registers through MLflow
is in ``ml_client.models`` and the other way round. What MLflow alone knows of a version is kept in its custom
properties (``mlflow.*``). Names are one regardless of case, as for all assets. Times in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.assets import store, versions
from noriba.database.tables import asset_containers as containers
from noriba.database.tables import asset_versions as version_rows
from noriba.database.tracking_tables import registered_model_aliases as aliases_table
from noriba.models.asset import AssetKind, Container, Version
from noriba.tracking.errors import exists, invalid, unknown
from noriba.tracking.upsert import put_rows

KIND: AssetKind = "models"
STAGES = {stage.lower(): stage for stage in ("None", "Staging", "Production", "Archived")}
_ACTIVE_STAGES = ("Staging", "Production")
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


# --- registered models


def create_model_in(
    connection: sa.Connection,
    workspace_id: str,
    name: str,
    *,
    description: str,
    tags: Mapping[str, str],
    created_by: str,
    now: float,
) -> RegisteredModel:
    """Make a registered model without versions. Raises BadRequest (RESOURCE_ALREADY_EXISTS)."""
    if store.find_container(connection, workspace_id, KIND, name) is not None:
        raise exists(f"Registered Model (name={name}) already exists.")
    connection.execute(
        containers.insert().values(
            scope=workspace_id,
            kind=KIND,
            key=name.lower(),
            name=name,
            properties={"description": description, "tags": dict(tags)},
            is_archived=False,
            latest_version=None,
            highest_number=0,
            created_at=now,
            created_by=created_by,
            modified_at=now,
        )
    )
    return get_model_in(connection, workspace_id, name)


def get_model_in(connection: sa.Connection, workspace_id: str, name: str) -> RegisteredModel:
    """The registered model of that name. Raises NotFound."""
    container = _container(connection, workspace_id, name)
    return _models(connection, workspace_id, [container])[0]


def update_model_in(
    connection: sa.Connection, workspace_id: str, name: str, description: str, now: float
) -> RegisteredModel:
    """Describe a registered model. Raises NotFound."""
    container = _container(connection, workspace_id, name)
    _set_container(connection, container, {**container.properties, "description": description}, now)
    return get_model_in(connection, workspace_id, name)


def rename_model_in(
    connection: sa.Connection, workspace_id: str, name: str, new_name: str, now: float
) -> RegisteredModel:
    """Rename a registered model with its versions and aliases. Raises NotFound or BadRequest (name taken)."""
    container = _container(connection, workspace_id, name)
    taken = store.find_container(connection, workspace_id, KIND, new_name)
    if taken is not None and taken.name.lower() != container.name.lower():
        raise exists(f"Registered Model (name={new_name}) already exists.")
    new = {"key": new_name.lower(), "name": new_name, "modified_at": now}
    connection.execute(containers.update().where(*_is(containers, workspace_id, name)).values(**new))
    connection.execute(version_rows.update().where(*_is(version_rows, workspace_id, name)).values(**new))
    connection.execute(
        aliases_table.update()
        .where(aliases_table.c.workspace_id == workspace_id, aliases_table.c.model_key == name.lower())
        .values(model_key=new_name.lower())
    )
    return get_model_in(connection, workspace_id, new_name)


def delete_model_in(connection: sa.Connection, workspace_id: str, name: str) -> None:
    """Delete a registered model with its versions (not their files). Raises NotFound."""
    _container(connection, workspace_id, name)
    versions.delete_container(connection, workspace_id, KIND, name)
    connection.execute(
        aliases_table.delete().where(
            aliases_table.c.workspace_id == workspace_id, aliases_table.c.model_key == name.lower()
        )
    )


def set_model_tag_in(
    connection: sa.Connection, workspace_id: str, name: str, key: str, value: str | None, now: float
) -> None:
    """Set a tag of a registered model, or remove it (None). Raises NotFound."""
    container = _container(connection, workspace_id, name)
    tags = _changed(container.properties.get("tags"), key, value)
    _set_container(connection, container, {**container.properties, "tags": tags}, now)


def all_models_in(connection: sa.Connection, workspace_id: str) -> list[RegisteredModel]:
    """All registered models of a workspace that are not archived."""
    rows = connection.execute(
        sa.select(containers).where(
            containers.c.scope == workspace_id,
            containers.c.kind == KIND,
            containers.c.is_archived.is_(False),
        )
    )
    return _models(connection, workspace_id, [store.container_of(row) for row in rows])


# --- versions


def create_version_in(
    connection: sa.Connection,
    workspace_id: str,
    name: str,
    *,
    source: str,
    uri: str,
    run_id: str,
    run_link: str,
    model_id: str,
    description: str,
    tags: Mapping[str, str],
    user: str,
    now: float,
) -> ModelVersion:
    """Register the next version of a model: ``source`` as the client named it, ``uri`` where it is. Raises NotFound
    when there is no such registered model."""
    container = _container(connection, workspace_id, name)
    custom = {SOURCE: source, RUN_LINK: run_link, MODEL_ID: model_id, USER_ID: user}
    properties = {
        "modelType": "mlflow_model",
        "modelUri": uri,
        "description": description,
        "tags": dict(tags),
        "properties": {key: value for key, value in custom.items() if value},
        "isAnonymous": False,
        "isArchived": False,
        "flavors": {},
        "jobName": run_id or None,
    }
    created, _ = versions.put_version(
        connection,
        workspace_id,
        KIND,
        container.name,
        container.next_version,
        properties,
        created_by=user,
        now=now,
    )
    return _version(created, {})


def get_version_in(connection: sa.Connection, workspace_id: str, name: str, version: str) -> ModelVersion:
    """A version of a registered model. Raises NotFound."""
    found = _find(connection, workspace_id, name, version)
    return _version(found, _aliases(connection, workspace_id, name))


def update_version_in(
    connection: sa.Connection,
    workspace_id: str,
    name: str,
    version: str,
    description: str | None,
    now: float,
) -> ModelVersion:
    """Describe a version. Raises NotFound."""
    found = _find(connection, workspace_id, name, version)
    _set_version(connection, found, {"description": description or ""}, now)
    return get_version_in(connection, workspace_id, name, version)


def set_version_tag_in(
    connection: sa.Connection,
    workspace_id: str,
    name: str,
    version: str,
    key: str,
    value: str | None,
    now: float,
) -> None:
    """Set a tag of a version, or remove it (None). Raises NotFound."""
    found = _find(connection, workspace_id, name, version)
    _set_version(connection, found, {"tags": _changed(found.properties.get("tags"), key, value)}, now)


def transition_in(
    connection: sa.Connection,
    workspace_id: str,
    name: str,
    version: str,
    stage: str,
    *,
    archive_others: bool,
    now: float,
) -> ModelVersion:
    """Move a version to a stage; ``archive_others`` archives those that are in it. Raises NotFound or BadRequest."""
    stage = check_stage(stage)
    if archive_others and stage not in _ACTIVE_STAGES:
        raise invalid(
            f"Model version transition cannot archive existing model versions because '{stage}' is not an Active "
            f"stage. Valid stages are {list(_ACTIVE_STAGES)}"
        )
    found = _find(connection, workspace_id, name, version)
    if archive_others:
        for other in _versions(connection, workspace_id, [name]):
            if other.version != version and _stage(other) == stage:
                _set_version(connection, other, {"stage": "Archived"}, now)
    _set_version(connection, found, {"stage": stage}, now)
    return get_version_in(connection, workspace_id, name, version)


def check_stage(stage: str) -> str:
    """The stage as MLflow spells it. Raises BadRequest."""
    known = STAGES.get(stage.lower())
    if known is None:
        raise invalid(
            f"Invalid Model Version stage: {stage}. Value must be one of {', '.join(STAGES.values())}."
        )
    return known


def delete_version_in(
    connection: sa.Connection, workspace_id: str, name: str, version: str, now: float
) -> None:
    """Delete a version; the registered model stays, and the number is not used again. Raises NotFound."""
    container = _container(connection, workspace_id, name)
    found = _find(connection, workspace_id, name, version)
    others = [v for v in _versions(connection, workspace_id, [name]) if v.version != version]
    if others:
        versions.delete_version(connection, workspace_id, KIND, container.name, found.version)
    else:
        connection.execute(version_rows.delete().where(version_rows.c.sequence == found.sequence))
        connection.execute(
            containers.update()
            .where(*_is(containers, workspace_id, name))
            .values(latest_version=None, modified_at=now)
        )
    connection.execute(
        aliases_table.delete().where(
            aliases_table.c.workspace_id == workspace_id,
            aliases_table.c.model_key == name.lower(),
            aliases_table.c.version == version,
        )
    )


def all_versions_in(
    connection: sa.Connection, workspace_id: str, name: str | None = None
) -> list[ModelVersion]:
    """All versions in a workspace (of one model, if a name is given) that are not archived assets."""
    if name is not None:
        rows = _versions(connection, workspace_id, [name])
    else:
        rows = _versions(connection, workspace_id, None)
    aliases: dict[str, dict[str, str]] = {}
    for row in connection.execute(
        sa.select(aliases_table).where(aliases_table.c.workspace_id == workspace_id)
    ):
        aliases.setdefault(row.model_key, {})[row.alias] = row.version
    return [_version(version, aliases.get(version.name.lower(), {})) for version in rows]


# --- aliases


def set_alias_in(connection: sa.Connection, workspace_id: str, name: str, alias: str, version: str) -> None:
    """Point an alias at a version. Raises NotFound."""
    _find(connection, workspace_id, name, version)
    put_rows(
        connection,
        aliases_table,
        [
            {
                "workspace_id": workspace_id,
                "model_key": name.lower(),
                "alias": alias,
                "version": version,
            }
        ],
        ["version"],
    )


def delete_alias_in(connection: sa.Connection, workspace_id: str, name: str, alias: str) -> None:
    """Remove an alias; one that is not there is no error. Raises NotFound for the model."""
    _container(connection, workspace_id, name)
    connection.execute(
        aliases_table.delete().where(
            aliases_table.c.workspace_id == workspace_id,
            aliases_table.c.model_key == name.lower(),
            aliases_table.c.alias == alias,
        )
    )


def get_by_alias_in(connection: sa.Connection, workspace_id: str, name: str, alias: str) -> ModelVersion:
    """The version that an alias points at. Raises NotFound for the model, BadRequest for the alias."""
    if alias.lower() == "latest":
        latest = store.find_latest(connection, workspace_id, KIND, name)
        if latest is not None:
            return get_version_in(connection, workspace_id, name, latest.version)
    _container(connection, workspace_id, name)
    version = _aliases(connection, workspace_id, name).get(alias)
    if version is None:
        raise invalid(f"Registered model alias {alias} not found.")
    return get_version_in(connection, workspace_id, name, version)


# --- rows


def _container(connection: sa.Connection, workspace_id: str, name: str) -> Container:
    found = store.find_container(connection, workspace_id, KIND, name)
    if found is None:
        raise unknown(f"Registered Model with name={name} not found")
    return found


def _find(connection: sa.Connection, workspace_id: str, name: str, version: str) -> Version:
    found = store.find_version(connection, workspace_id, KIND, name, version)
    if found is None:
        raise unknown(f"Model Version (name={name}, version={version}) not found")
    return found


def _is(table: sa.Table, workspace_id: str, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.scope == workspace_id, table.c.kind == KIND, table.c.key == name.lower()


def _versions(connection: sa.Connection, workspace_id: str, names: list[str] | None) -> list[Version]:
    statement = sa.select(version_rows).where(
        version_rows.c.scope == workspace_id,
        version_rows.c.kind == KIND,
        version_rows.c.is_archived.is_(False),
        version_rows.c.is_anonymous.is_(False),
    )
    if names is not None and len(names) <= 500:
        statement = statement.where(version_rows.c.key.in_([name.lower() for name in names]))
    return [store.version_of(row) for row in connection.execute(statement.order_by(version_rows.c.sequence))]


def _aliases(connection: sa.Connection, workspace_id: str, name: str) -> dict[str, str]:
    rows = connection.execute(
        sa.select(aliases_table.c.alias, aliases_table.c.version).where(
            aliases_table.c.workspace_id == workspace_id, aliases_table.c.model_key == name.lower()
        )
    )
    return {row.alias: row.version for row in rows}


def _set_container(
    connection: sa.Connection, container: Container, properties: dict[str, Any], now: float
) -> None:
    connection.execute(
        containers.update()
        .where(*_is(containers, container.scope, container.name))
        .values(properties=properties, modified_at=now)
    )


def _set_version(connection: sa.Connection, version: Version, changes: dict[str, Any], now: float) -> None:
    values: dict[str, Any] = {"properties": {**version.properties, **changes}, "modified_at": now}
    if "stage" in changes:
        values["stage"] = changes["stage"]
    connection.execute(
        version_rows.update().where(version_rows.c.sequence == version.sequence).values(**values)
    )


def _changed(tags: Any, key: str, value: str | None) -> dict[str, str]:
    changed = dict(tags or {})
    changed.pop(key, None)
    if value is not None:
        changed[key] = value
    return changed


def _stage(version: Version) -> str:
    stage = version.stage or version.properties.get("stage") or "None"
    # Azure ML knows a stage "Development" that MLflow has not.
    return STAGES.get(str(stage).lower(), "None")


def _version(version: Version, aliases: Mapping[str, str]) -> ModelVersion:
    properties = version.properties
    custom = properties.get("properties") or {}
    uri = str(properties.get("modelUri") or "")
    return ModelVersion(
        name=version.name,
        version=version.version,
        description=str(properties.get("description") or ""),
        user_id=str(custom.get(USER_ID) or version.created_by),
        stage=_stage(version),
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


def _models(connection: sa.Connection, workspace_id: str, found: list[Container]) -> list[RegisteredModel]:
    latest: dict[str, dict[str, ModelVersion]] = {}
    aliases: dict[str, dict[str, str]] = {}
    for row in connection.execute(
        sa.select(aliases_table).where(aliases_table.c.workspace_id == workspace_id)
    ):
        aliases.setdefault(row.model_key, {})[row.alias] = row.version
    for version in _versions(connection, workspace_id, [container.name for container in found]):
        key = version.name.lower()
        model_version = _version(version, aliases.get(key, {}))
        # In order of creation: the last of each stage stays.
        latest.setdefault(key, {})[model_version.stage] = model_version
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
