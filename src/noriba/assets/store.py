"""Assets in the database: reading. Functions take a connection and run inside a read or a write."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa

from noriba.database.tables import asset_containers as containers
from noriba.database.tables import asset_versions as versions
from noriba.models.asset import AssetKind, Container, Version

ListView = Literal["ActiveOnly", "ArchivedOnly", "All"]


def find_version(
    connection: sa.Connection, scope: str, kind: AssetKind, name: str, version: str
) -> Version | None:
    """One version, by its exact name."""
    row = connection.execute(
        sa.select(versions).where(
            versions.c.scope == scope,
            versions.c.kind == kind,
            versions.c.key == name.lower(),
            versions.c.version == version,
        )
    ).one_or_none()
    return None if row is None else version_of(row)


def find_latest(
    connection: sa.Connection, scope: str, kind: AssetKind, name: str, *, archived: bool = False
) -> Version | None:
    """The version created last. Archived ones count only with ``archived``, after all others."""
    statement = sa.select(versions).where(
        versions.c.scope == scope, versions.c.kind == kind, versions.c.key == name.lower()
    )
    if not archived:
        statement = statement.where(versions.c.is_archived.is_(False))
    row = connection.execute(
        statement.order_by(versions.c.is_archived, versions.c.sequence.desc()).limit(1)
    ).one_or_none()
    return None if row is None else version_of(row)


def find_container(connection: sa.Connection, scope: str, kind: AssetKind, name: str) -> Container | None:
    """The container of a name."""
    row = connection.execute(
        sa.select(containers).where(
            containers.c.scope == scope, containers.c.kind == kind, containers.c.key == name.lower()
        )
    ).one_or_none()
    return None if row is None else container_of(row)


def find_code(connection: sa.Connection, scope: str, content_hash: str) -> Version | None:
    """The first code with this content, under whatever name (wire.md, rule 4)."""
    row = connection.execute(
        sa.select(versions)
        .where(versions.c.scope == scope, versions.c.kind == "codes", versions.c.hash == content_hash)
        .order_by(versions.c.sequence)
        .limit(1)
    ).one_or_none()
    return None if row is None else version_of(row)


def version_of(row: sa.Row[Any]) -> Version:
    """The version in a row."""
    return Version(
        sequence=row.sequence,
        scope=row.scope,
        kind=row.kind,
        name=row.name,
        version=row.version,
        properties=row.properties,
        hash=row.hash,
        stage=row.stage,
        is_archived=row.is_archived,
        is_anonymous=row.is_anonymous,
        created_at=row.created_at,
        created_by=row.created_by,
        modified_at=row.modified_at,
    )


def container_of(row: sa.Row[Any]) -> Container:
    """The container in a row."""
    return Container(
        scope=row.scope,
        kind=row.kind,
        name=row.name,
        properties=row.properties,
        is_archived=row.is_archived,
        latest_version=row.latest_version,
        next_version=str(row.highest_number + 1),
        created_at=row.created_at,
        created_by=row.created_by,
        modified_at=row.modified_at,
    )
