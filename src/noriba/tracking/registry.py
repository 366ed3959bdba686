"""MLflow's model registry: the workspace's model assets, seen as MLflow sees them.

A registered model is a model asset's container, a model version its version; so what a job registers through MLflow
is in ``ml_client.models`` and the other way round. What MLflow alone knows of a version is kept in its custom
properties (``mlflow.*``). Names are one regardless of case, as for all assets. Times in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from noriba.assets import store, versions
from noriba.database.tables import asset_containers as containers
from noriba.database.tables import asset_versions as version_rows
from noriba.database.tracking_tables import registered_model_aliases as aliases_table
from noriba.tracking.errors import exists, invalid
from noriba.tracking.registry_rows import (
    KIND,
    MODEL_ID,
    RUN_LINK,
    SOURCE,
    STAGES,
    USER_ID,
    ModelVersion,
    RegisteredModel,
    aliases_of,
    changed_tags,
    container_of,
    find_version,
    is_model,
    model_version,
    registered_models,
    set_container,
    set_version,
    stage_of,
    versions_of,
)
from noriba.tracking.upsert import put_rows

_ACTIVE_STAGES = ("Staging", "Production")


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
    container = container_of(connection, workspace_id, name)
    return registered_models(connection, workspace_id, [container])[0]


def update_model_in(
    connection: sa.Connection, workspace_id: str, name: str, description: str, now: float
) -> RegisteredModel:
    """Describe a registered model. Raises NotFound."""
    container = container_of(connection, workspace_id, name)
    set_container(connection, container, {**container.properties, "description": description}, now)
    return get_model_in(connection, workspace_id, name)


def rename_model_in(
    connection: sa.Connection, workspace_id: str, name: str, new_name: str, now: float
) -> RegisteredModel:
    """Rename a registered model with its versions and aliases. Raises NotFound or BadRequest (name taken)."""
    container = container_of(connection, workspace_id, name)
    taken = store.find_container(connection, workspace_id, KIND, new_name)
    if taken is not None and taken.name.lower() != container.name.lower():
        raise exists(f"Registered Model (name={new_name}) already exists.")
    new = {"key": new_name.lower(), "name": new_name, "modified_at": now}
    connection.execute(containers.update().where(*is_model(containers, workspace_id, name)).values(**new))
    connection.execute(version_rows.update().where(*is_model(version_rows, workspace_id, name)).values(**new))
    connection.execute(
        aliases_table.update()
        .where(aliases_table.c.workspace_id == workspace_id, aliases_table.c.model_key == name.lower())
        .values(model_key=new_name.lower())
    )
    return get_model_in(connection, workspace_id, new_name)


def delete_model_in(connection: sa.Connection, workspace_id: str, name: str) -> None:
    """Delete a registered model with its versions (not their files). Raises NotFound."""
    container_of(connection, workspace_id, name)
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
    container = container_of(connection, workspace_id, name)
    tags = changed_tags(container.properties.get("tags"), key, value)
    set_container(connection, container, {**container.properties, "tags": tags}, now)


def all_models_in(connection: sa.Connection, workspace_id: str) -> list[RegisteredModel]:
    """All registered models of a workspace that are not archived."""
    rows = connection.execute(
        sa.select(containers).where(
            containers.c.scope == workspace_id,
            containers.c.kind == KIND,
            containers.c.is_archived.is_(False),
        )
    )
    return registered_models(connection, workspace_id, [store.container_of(row) for row in rows])


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
    container = container_of(connection, workspace_id, name)
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
    return model_version(created, {})


def get_version_in(connection: sa.Connection, workspace_id: str, name: str, version: str) -> ModelVersion:
    """A version of a registered model. Raises NotFound."""
    found = find_version(connection, workspace_id, name, version)
    return model_version(found, aliases_of(connection, workspace_id, name))


def update_version_in(
    connection: sa.Connection,
    workspace_id: str,
    name: str,
    version: str,
    description: str | None,
    now: float,
) -> ModelVersion:
    """Describe a version. Raises NotFound."""
    found = find_version(connection, workspace_id, name, version)
    set_version(connection, found, {"description": description or ""}, now)
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
    found = find_version(connection, workspace_id, name, version)
    set_version(connection, found, {"tags": changed_tags(found.properties.get("tags"), key, value)}, now)


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
    found = find_version(connection, workspace_id, name, version)
    if archive_others:
        for other in versions_of(connection, workspace_id, [name]):
            if other.version != version and stage_of(other) == stage:
                set_version(connection, other, {"stage": "Archived"}, now)
    set_version(connection, found, {"stage": stage}, now)
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
    container = container_of(connection, workspace_id, name)
    found = find_version(connection, workspace_id, name, version)
    others = [v for v in versions_of(connection, workspace_id, [name]) if v.version != version]
    if others:
        versions.delete_version(connection, workspace_id, KIND, container.name, found.version)
    else:
        connection.execute(version_rows.delete().where(version_rows.c.sequence == found.sequence))
        connection.execute(
            containers.update()
            .where(*is_model(containers, workspace_id, name))
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
        rows = versions_of(connection, workspace_id, [name])
    else:
        rows = versions_of(connection, workspace_id, None)
    aliases: dict[str, dict[str, str]] = {}
    for row in connection.execute(
        sa.select(aliases_table).where(aliases_table.c.workspace_id == workspace_id)
    ):
        aliases.setdefault(row.model_key, {})[row.alias] = row.version
    return [model_version(version, aliases.get(version.name.lower(), {})) for version in rows]


# --- aliases


def set_alias_in(connection: sa.Connection, workspace_id: str, name: str, alias: str, version: str) -> None:
    """Point an alias at a version. Raises NotFound."""
    find_version(connection, workspace_id, name, version)
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
    container_of(connection, workspace_id, name)
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
    container_of(connection, workspace_id, name)
    version = aliases_of(connection, workspace_id, name).get(alias)
    if version is None:
        raise invalid(f"Registered model alias {alias} not found.")
    return get_version_in(connection, workspace_id, name, version)
