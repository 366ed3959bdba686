"""Lists of assets, page by page, in an order that new assets do not disturb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from noriba.assets.store import ListView, container_of, version_of
from noriba.database.tables import asset_containers as containers
from noriba.database.tables import asset_versions as versions
from noriba.models.asset import AssetKind, Container, Version
from noriba.models.errors import BadRequest

Order = Literal["createdtime desc", "createdtime asc", "modifiedtime desc", "modifiedtime asc"]

SCAN_ROWS = 500
"""How many rows are read at a time when a filter is not the database's."""


class VersionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which versions a list shows. ``tags`` and ``properties`` map names to values (None: any value)."""

    view: ListView = "ActiveOnly"
    stage: str | None = None
    hash: str | None = None
    version: str | None = None
    tags: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}

    def keeps(self, version: Version) -> bool:
        """The part of the filter that the database does not do."""
        return _has(version.properties.get("tags"), self.tags) and _has(
            version.properties.get("properties"), self.properties
        )


def _has(found: Any, wanted: dict[str, str | None]) -> bool:
    found = found if isinstance(found, dict) else {}
    return all(name in found and value in (None, found[name]) for name, value in wanted.items())


def parse_order(text: str | None) -> Order:
    """The order that a ``$orderBy`` asks for; the newest first by default. Raises BadRequest."""
    words = (text or "createdtime desc").lower().split()
    field = {"createdat": "createdtime", "updatedtime": "modifiedtime"}.get(words[0], words[0])
    direction = words[1] if len(words) > 1 else "asc"
    if field not in ("createdtime", "modifiedtime") or direction not in ("asc", "desc") or len(words) > 2:
        raise BadRequest(
            f"'{text}' is not an order. Use createdtime or modifiedtime, with asc or desc.", target="$orderBy"
        )
    return f"{field} {direction}"  # type: ignore[return-value]


def parse_pairs(text: str | None) -> dict[str, str | None]:
    """``a=1,b`` of a query as ``{"a": "1", "b": None}``."""
    pairs: dict[str, str | None] = {}
    for part in (text or "").split(","):
        name, equals, value = part.strip().partition("=")
        if name:
            pairs[name] = value if equals else None
    return pairs


def list_versions(
    connection: sa.Connection,
    scope: str,
    kind: AssetKind,
    name: str | None,
    wanted: VersionFilter,
    *,
    order: Order = "createdtime desc",
    skip: str | None = None,
    limit: int,
) -> tuple[list[Version], str | None]:
    """A page of the versions of a name (or, with a hash, of any name), and where the next one starts.

    Raises ValueError when ``skip`` is not from here.
    """
    statement = sa.select(versions).where(versions.c.scope == scope, versions.c.kind == kind)
    if wanted.hash is not None:
        statement = statement.where(versions.c.hash == wanted.hash)
    elif name is not None:
        statement = statement.where(versions.c.key == name.lower())
    if wanted.stage is not None:
        statement = statement.where(versions.c.stage == wanted.stage)
    if wanted.version is not None:
        statement = statement.where(versions.c.version == wanted.version)
    if wanted.view != "All":
        archived = sa.or_(versions.c.is_archived, _container_archived())
        statement = statement.where(archived if wanted.view == "ArchivedOnly" else sa.not_(archived))
    field, _, direction = order.partition(" ")
    column = versions.c.sequence if field == "createdtime" else versions.c.modified_at
    by = [column, versions.c.sequence]
    statement = statement.order_by(*([c.desc() for c in by] if direction == "desc" else by))

    def fetch(start: str | None) -> list[Version]:
        page = statement
        if start is not None:
            value, sequence = start.split("_")
            here = sa.tuple_(*by)
            there = sa.tuple_(
                sa.literal(float(value) if field != "createdtime" else int(value)), sa.literal(int(sequence))
            )
            page = page.where(here < there if direction == "desc" else here > there)
        rows = connection.execute(page.limit(limit + 1 if _in_database(wanted) else SCAN_ROWS))
        return [version_of(row) for row in rows]

    def token(version: Version) -> str:
        value = version.sequence if field == "createdtime" else version.modified_at
        return f"{value!r}_{version.sequence}"

    if _in_database(wanted):
        found = fetch(skip)
        return found[:limit], token(found[limit - 1]) if len(found) > limit else None
    return _scan(fetch, token, wanted, skip, limit)


def _in_database(wanted: VersionFilter) -> bool:
    return not wanted.tags and not wanted.properties


def _scan(
    fetch: Callable[[str | None], list[Version]],
    token: Callable[[Version], str],
    wanted: VersionFilter,
    skip: str | None,
    limit: int,
) -> tuple[list[Version], str | None]:
    kept: list[Version] = []
    while rows := fetch(skip):
        for row in rows:
            if wanted.keeps(row):
                if len(kept) == limit:
                    return kept, token(kept[-1])
                kept.append(row)
        skip = token(rows[-1])
    return kept, None


def _container_archived() -> sa.ColumnElement[bool]:
    return sa.exists().where(
        containers.c.scope == versions.c.scope,
        containers.c.kind == versions.c.kind,
        containers.c.key == versions.c.key,
        containers.c.is_archived,
    )


def list_containers(
    connection: sa.Connection,
    scope: str,
    kind: AssetKind,
    *,
    view: ListView = "ActiveOnly",
    skip: str | None = None,
    limit: int,
) -> tuple[list[Container], str | None]:
    """A page of names in alphabetical order, without those that hold anonymous versions only, and where the next
    page starts."""
    mine = (
        versions.c.scope == containers.c.scope,
        versions.c.kind == containers.c.kind,
        versions.c.key == containers.c.key,
    )
    statement = sa.select(containers).where(
        containers.c.scope == scope,
        containers.c.kind == kind,
        sa.or_(
            containers.c.latest_version.is_(None),
            sa.exists().where(*mine, versions.c.is_anonymous.is_(False)),
        ),
    )
    if view != "All":
        statement = statement.where(containers.c.is_archived.is_(view == "ArchivedOnly"))
    if skip is not None:
        statement = statement.where(containers.c.key > skip)
    rows = connection.execute(statement.order_by(containers.c.key).limit(limit + 1)).all()
    following = rows[limit - 1].key if len(rows) > limit else None
    return [container_of(row) for row in rows[:limit]], following
