"""Experiments. Functions that end in ``_in`` run inside the caller's transaction; times in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from noriba.database.tracking_tables import experiment_tags, experiments, runs
from noriba.tracking.conditions import compare, direction, has_pair
from noriba.tracking.errors import InvalidState, exists, invalid, unknown
from noriba.tracking.filters import Comparison, parse_filter, parse_order
from noriba.tracking.languages import EXPERIMENTS
from noriba.tracking.store import DEFAULT_EXPERIMENT_ID, insert_experiment_in
from noriba.tracking.upsert import add_rows, put_rows

View = Literal["ACTIVE_ONLY", "DELETED_ONLY", "ALL"]
_COLUMNS: dict[str, sa.Column[Any]] = {
    "name": experiments.c.name,
    "experiment_id": experiments.c.id,
    "creation_time": experiments.c.created_ms,
    "last_update_time": experiments.c.updated_ms,
}


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """``artifact_location`` is None where the server keeps the artifacts."""

    id: str
    name: str
    artifact_location: str | None
    lifecycle_stage: str
    created_ms: int
    updated_ms: int
    tags: dict[str, str]


def ensure_default_in(connection: sa.Connection, workspace_id: str, now_ms: int) -> None:
    """Make the experiment with id 0, which clients use when none is set, if the workspace has none."""
    add_rows(
        connection,
        experiments,
        [
            {
                "workspace_id": workspace_id,
                "id": DEFAULT_EXPERIMENT_ID,
                "name": "Default",
                "lifecycle_stage": "active",
                "created_ms": now_ms,
                "updated_ms": now_ms,
            }
        ],
    )


def create_in(
    connection: sa.Connection,
    workspace_id: str,
    name: str,
    *,
    tags: Mapping[str, str],
    artifact_location: str | None,
    now_ms: int,
) -> str:
    """Make an experiment; returns its id. Raises BadRequest (RESOURCE_ALREADY_EXISTS)."""
    taken = connection.execute(
        sa.select(experiments.c.lifecycle_stage).where(_named(workspace_id, name))
    ).scalar_one_or_none()
    if taken is not None:
        deleted = " (deleted: restore it, or choose another name)" if taken != "active" else ""
        raise exists(f"Experiment(name={name}) already exists{deleted}.")
    experiment_id = insert_experiment_in(connection, workspace_id, name, now_ms, artifact_location)
    for key, value in tags.items():
        set_tag_in(connection, workspace_id, experiment_id, key, value)
    return experiment_id


def get_in(connection: sa.Connection, workspace_id: str, experiment_id: str) -> Experiment:
    """The experiment with that id, deleted ones too. Raises NotFound."""
    found = _load(connection, sa.select(experiments).where(_identified(workspace_id, experiment_id)))
    if not found:
        raise unknown(f"No Experiment with id={experiment_id} exists")
    return found[0]


def get_by_name_in(connection: sa.Connection, workspace_id: str, name: str) -> Experiment:
    """The experiment with that name, deleted ones too. Raises NotFound."""
    found = _load(connection, sa.select(experiments).where(_named(workspace_id, name)))
    if not found:
        raise unknown(f"Could not find experiment with name '{name}'")
    return found[0]


def active_in(connection: sa.Connection, workspace_id: str, experiment_id: str) -> Experiment:
    """The experiment, which must not be deleted. Raises NotFound or BadRequest."""
    experiment = get_in(connection, workspace_id, experiment_id)
    if experiment.lifecycle_stage != "active":
        raise invalid(
            f"The experiment {experiment_id} must be in the 'active' state. "
            f"Current state is {experiment.lifecycle_stage}."
        )
    return experiment


def rename_in(
    connection: sa.Connection, workspace_id: str, experiment_id: str, name: str, now_ms: int
) -> None:
    """Rename an experiment. Raises NotFound, InvalidState (deleted) or BadRequest (name taken)."""
    experiment = get_in(connection, workspace_id, experiment_id)
    if experiment.lifecycle_stage != "active":
        raise InvalidState("Cannot rename a non-active experiment. Restore it first.")
    taken = connection.execute(
        sa.select(experiments.c.id).where(_named(workspace_id, name))
    ).scalar_one_or_none()
    if taken not in (None, experiment_id):
        raise exists(f"Experiment(name={name}) already exists.")
    connection.execute(
        experiments.update()
        .where(_identified(workspace_id, experiment_id))
        .values(name=name, updated_ms=now_ms)
    )


def set_lifecycle_in(
    connection: sa.Connection, workspace_id: str, experiment_id: str, stage: str, now_ms: int
) -> None:
    """Delete (``deleted``) or restore (``active``) an experiment and its runs. Raises NotFound."""
    changed = connection.execute(
        experiments.update()
        .where(_identified(workspace_id, experiment_id), experiments.c.lifecycle_stage != stage)
        .values(lifecycle_stage=stage, updated_ms=now_ms)
    )
    if not changed.rowcount:
        raise unknown(
            f"No {'Active' if stage == 'deleted' else 'Deleted'} Experiment with id={experiment_id} exists"
        )
    connection.execute(
        runs.update()
        .where(runs.c.workspace_id == workspace_id, runs.c.experiment_id == experiment_id)
        .values(lifecycle_stage=stage)
    )


def set_tag_in(
    connection: sa.Connection, workspace_id: str, experiment_id: str, key: str, value: str
) -> None:
    """Set a tag of an active experiment."""
    active_in(connection, workspace_id, experiment_id)
    put_rows(
        connection,
        experiment_tags,
        [{"workspace_id": workspace_id, "experiment_id": experiment_id, "key": key, "value": value}],
        ["value"],
    )


def delete_tag_in(connection: sa.Connection, workspace_id: str, experiment_id: str, key: str) -> None:
    """Remove a tag of an active experiment. Raises NotFound."""
    active_in(connection, workspace_id, experiment_id)
    removed = connection.execute(
        experiment_tags.delete().where(
            experiment_tags.c.workspace_id == workspace_id,
            experiment_tags.c.experiment_id == experiment_id,
            experiment_tags.c.key == key,
        )
    )
    if not removed.rowcount:
        raise unknown(f"No tag with name: {key} in experiment with id {experiment_id}")


def search_in(
    connection: sa.Connection,
    workspace_id: str,
    *,
    filter_text: str | None,
    order_by: list[str] | None,
    view: View,
    limit: int,
    offset: int,
) -> tuple[list[Experiment], bool]:
    """The experiments that match, and whether there are more. Raises BadRequest for a bad filter or order."""
    dialect = connection.dialect.name
    conditions = [_condition(comparison, dialect) for comparison in parse_filter(filter_text, EXPERIMENTS)]
    orders = parse_order(order_by or ["creation_time DESC", "experiment_id ASC"], EXPERIMENTS)
    clauses = [direction(_COLUMNS[order.key], order.ascending) for order in orders]
    if all(order.key != "experiment_id" for order in orders):
        clauses.append(experiments.c.id.desc())
    statement = (
        sa.select(experiments)
        .where(experiments.c.workspace_id == workspace_id, *lifecycle(experiments, view), *conditions)
        .order_by(*clauses)
        .limit(limit + 1)
        .offset(offset)
    )
    found = _load(connection, statement)
    return found[:limit], len(found) > limit


def lifecycle(table: sa.Table, view: View) -> list[sa.ColumnElement[bool]]:
    """The condition for MLflow's view types."""
    if view == "ALL":
        return []
    return [table.c.lifecycle_stage == ("active" if view == "ACTIVE_ONLY" else "deleted")]


def _condition(comparison: Comparison, dialect: str) -> sa.ColumnElement[bool]:
    if comparison.kind == "attribute":
        return compare(_COLUMNS[comparison.key], comparison.operator, comparison.value, dialect)
    owner = [
        experiment_tags.c.workspace_id == experiments.c.workspace_id,
        experiment_tags.c.experiment_id == experiments.c.id,
    ]
    return has_pair(experiment_tags, owner, comparison, dialect)


def _identified(workspace_id: str, experiment_id: str) -> sa.ColumnElement[bool]:
    return (experiments.c.workspace_id == workspace_id) & (experiments.c.id == experiment_id)


def _named(workspace_id: str, name: str) -> sa.ColumnElement[bool]:
    return (experiments.c.workspace_id == workspace_id) & (experiments.c.name == name)


def _load(connection: sa.Connection, statement: sa.Select[Any]) -> list[Experiment]:
    rows = connection.execute(statement).all()
    tags = _tags(connection, rows)
    return [
        Experiment(
            id=row.id,
            name=row.name,
            artifact_location=row.artifact_location,
            lifecycle_stage=row.lifecycle_stage,
            created_ms=row.created_ms,
            updated_ms=row.updated_ms,
            tags=tags.get(row.id, {}),
        )
        for row in rows
    ]


def _tags(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    if not rows:
        return found
    statement = sa.select(experiment_tags).where(experiment_tags.c.workspace_id == rows[0].workspace_id)
    if len(rows) <= 500:
        statement = statement.where(experiment_tags.c.experiment_id.in_([row.id for row in rows]))
    for row in connection.execute(statement.order_by(experiment_tags.c.key)):
        found.setdefault(row.experiment_id, {})[row.key] = row.value
    return found
