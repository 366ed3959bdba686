"""Assets in the database: writing. Functions take the connection of a write (database/connection.py)."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from noriba.assets import documents, store
from noriba.database.tables import asset_containers as containers
from noriba.database.tables import asset_versions as versions
from noriba.models.asset import AssetKind, Container, Version
from noriba.models.errors import Conflict, NotFound


def put_version(
    connection: sa.Connection,
    scope: str,
    kind: AssetKind,
    name: str,
    version: str,
    properties: dict[str, Any],
    *,
    created_by: str,
    now: float,
) -> tuple[Version, bool]:
    """Create a version, or update what may change of it; returns it and whether it is new.

    ``properties`` are checked (documents.check_properties). Raises Conflict when the version exists with other
    content.
    """
    existing = store.find_version(connection, scope, kind, name, version)
    if existing is not None:
        return _update(connection, existing, properties, now), False
    container = _touch_container(connection, scope, kind, name, properties, created_by=created_by, now=now)
    connection.execute(
        versions.insert().values(
            scope=scope,
            kind=kind,
            key=name.lower(),
            # Names are one regardless of case; the first spelling stays.
            name=container.name,
            version=version,
            created_at=now,
            created_by=created_by,
            modified_at=now,
            **_columns(kind, properties),
        )
    )
    _refresh(connection, scope, kind, name, highest=documents.number_of(version))
    created = store.find_version(connection, scope, kind, name, version)
    assert created is not None
    return created, True


def next_version(connection: sa.Connection, scope: str, kind: AssetKind, name: str) -> str:
    """The version that the next automatic one gets."""
    container = store.find_container(connection, scope, kind, name)
    return "1" if container is None else container.next_version


def _update(connection: sa.Connection, existing: Version, properties: dict[str, Any], now: float) -> Version:
    merged = documents.merge_properties(
        existing.kind, existing.name, existing.version, existing.properties, properties
    )
    if merged != existing.properties:
        connection.execute(
            versions.update()
            .where(versions.c.sequence == existing.sequence)
            .values(modified_at=now, **_columns(existing.kind, merged))
        )
        if bool(merged.get("isArchived")) != existing.is_archived:
            _refresh(connection, existing.scope, existing.kind, existing.name)
    found = store.find_version(connection, existing.scope, existing.kind, existing.name, existing.version)
    assert found is not None
    return found


def fill_properties(connection: sa.Connection, existing: Version, found: dict[str, Any]) -> None:
    """Add to a version what the server found out about it."""
    connection.execute(
        versions.update()
        .where(versions.c.sequence == existing.sequence)
        .values(properties={**existing.properties, **found})
    )


def _columns(kind: AssetKind, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "properties": properties,
        "hash": documents.code_hash(properties) if kind == "codes" else None,
        "stage": properties.get("stage"),
        "is_archived": bool(properties.get("isArchived")),
        "is_anonymous": documents.is_anonymous(properties),
    }


def _touch_container(
    connection: sa.Connection,
    scope: str,
    kind: AssetKind,
    name: str,
    properties: dict[str, Any],
    *,
    created_by: str,
    now: float,
) -> Container:
    """The container that a new version goes to, made if it is missing."""
    container = store.find_container(connection, scope, kind, name)
    data_type = properties.get("dataType")
    if container is None:
        connection.execute(
            containers.insert().values(
                scope=scope,
                kind=kind,
                key=name.lower(),
                name=name,
                properties={"dataType": data_type} if data_type else {},
                is_archived=False,
                latest_version=None,
                highest_number=0,
                created_at=now,
                created_by=created_by,
                modified_at=now,
            )
        )
    else:
        has_type = container.properties.get("dataType")
        if data_type and has_type and data_type != has_type and container.latest_version:
            raise Conflict(
                f"'{container.name}' is {has_type}; all its versions are of one type. "
                f"Give the {data_type} another name.",
                code="DataTypeMismatch",
                target="dataType",
            )
        # A name that is used again is not archived any more.
        connection.execute(
            containers.update().where(*_key(scope, kind, name)).values(is_archived=False, modified_at=now)
        )
    found = store.find_container(connection, scope, kind, name)
    assert found is not None
    return found


def _key(scope: str, kind: AssetKind, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return containers.c.scope == scope, containers.c.kind == kind, containers.c.key == name.lower()


def _refresh(connection: sa.Connection, scope: str, kind: AssetKind, name: str, highest: int = 0) -> None:
    """Make the container's summary of its versions true again."""
    latest = store.find_latest(connection, scope, kind, name, archived=True)
    values: dict[str, Any] = {"latest_version": latest.version if latest else None}
    if highest:
        values["highest_number"] = sa.case(
            (containers.c.highest_number < highest, highest), else_=containers.c.highest_number
        )
    connection.execute(containers.update().where(*_key(scope, kind, name)).values(**values))


def put_container(
    connection: sa.Connection,
    scope: str,
    kind: AssetKind,
    name: str,
    properties: dict[str, Any],
    *,
    created_by: str,
    now: float,
) -> tuple[Container, bool]:
    """Create a container or replace its properties (archiving is one of them); whether it is new."""
    documents.check_name(name)
    existing = store.find_container(connection, scope, kind, name)
    kept = {
        field: value
        for field, value in properties.items()
        if field not in ("isArchived", "latestVersion", "nextVersion", "provisioningState")
        and value is not None
    }
    archived = bool(properties.get("isArchived"))
    if existing is None:
        connection.execute(
            containers.insert().values(
                scope=scope,
                kind=kind,
                key=name.lower(),
                name=name,
                properties=kept,
                is_archived=archived,
                latest_version=None,
                highest_number=0,
                created_at=now,
                created_by=created_by,
                modified_at=now,
            )
        )
    else:
        if existing.latest_version and (data_type := existing.properties.get("dataType")):
            kept["dataType"] = data_type
        connection.execute(
            containers.update()
            .where(*_key(scope, kind, name))
            .values(properties=kept, is_archived=archived, modified_at=now)
        )
    found = store.find_container(connection, scope, kind, name)
    assert found is not None
    return found, existing is None


def delete_version(connection: sa.Connection, scope: str, kind: AssetKind, name: str, version: str) -> bool:
    """Delete a version (not the data it points at); the name goes with its last one. False if there is none."""
    existing = store.find_version(connection, scope, kind, name, version)
    if existing is None:
        return False
    connection.execute(versions.delete().where(versions.c.sequence == existing.sequence))
    if store.find_latest(connection, scope, kind, name, archived=True) is None:
        connection.execute(containers.delete().where(*_key(scope, kind, name)))
    else:
        _refresh(connection, scope, kind, name)
    return True


def delete_container(connection: sa.Connection, scope: str, kind: AssetKind, name: str) -> bool:
    """Delete a name with all its versions. False if there is none."""
    connection.execute(
        versions.delete().where(
            versions.c.scope == scope, versions.c.kind == kind, versions.c.key == name.lower()
        )
    )
    return connection.execute(containers.delete().where(*_key(scope, kind, name))).rowcount > 0


def require_container(connection: sa.Connection, scope: str, kind: AssetKind, name: str) -> Container:
    """The container of a name. Raises NotFound."""
    found = store.find_container(connection, scope, kind, name)
    if found is None:
        raise NotFound(f"There are no {kind} named '{name}' here.", code="AssetNotFound", target=name)
    return found
