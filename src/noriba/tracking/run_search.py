"""Search of runs: the conditions and orders of MLflow's language over the tables of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from noriba.database.tracking_tables import (
    run_datasets,
    run_latest_metrics,
    run_params,
    run_tags,
    runs,
)
from noriba.tracking.conditions import compare, direction, has_pair, metric_condition
from noriba.tracking.experiments import View, lifecycle
from noriba.tracking.filters import Comparison, Order, parse_filter, parse_order
from noriba.tracking.languages import RUNS
from noriba.tracking.runs import Run, load, select

_COLUMNS: dict[str, sa.Column[Any]] = {
    "run_id": runs.c.id,
    "run_name": runs.c.name,
    "status": runs.c.status,
    "user_id": runs.c.user_id,
    "start_time": runs.c.start_ms,
    "end_time": runs.c.end_ms,
}
_TABLES = {"param": run_params, "tag": run_tags, "metric": run_latest_metrics}


def search_in(
    connection: sa.Connection,
    workspace_id: str,
    *,
    experiment_ids: Sequence[str],
    filter_text: str | None,
    order_by: list[str] | None,
    view: View,
    limit: int,
    offset: int,
) -> tuple[list[Run], bool]:
    """The runs that match, and whether there are more. Without an order the latest started come first; runs without
    the value that is ordered by come last. Raises BadRequest for a bad filter or order."""
    dialect = connection.dialect.name
    conditions = [_condition(comparison, dialect) for comparison in parse_filter(filter_text, RUNS)]
    statement = select().where(
        runs.c.workspace_id == workspace_id,
        runs.c.experiment_id.in_(list(experiment_ids)),
        *lifecycle(runs, view),
        *conditions,
    )
    statement = _ordered(statement, parse_order(order_by, RUNS)).limit(limit + 1).offset(offset)
    found = load(connection, statement)
    return found[:limit], len(found) > limit


def _condition(comparison: Comparison, dialect: str) -> sa.ColumnElement[bool]:
    if comparison.kind == "attribute":
        return compare(_COLUMNS[comparison.key], comparison.operator, comparison.value, dialect)
    if comparison.kind == "metric":
        table = run_latest_metrics
        return (
            sa.select(sa.literal(1))
            .select_from(table)
            .where(
                table.c.run_key == runs.c.key,
                table.c.key == comparison.key,
                metric_condition(table.c.value, table.c.is_nan, comparison, dialect),
            )
            .exists()
        )
    if comparison.kind == "dataset":
        column = run_datasets.c[comparison.key]
        return (
            sa.select(sa.literal(1))
            .select_from(run_datasets)
            .where(
                run_datasets.c.run_key == runs.c.key,
                compare(column, comparison.operator, comparison.value, dialect),
                *([run_datasets.c.context != ""] if comparison.key == "context" else []),
            )
            .exists()
        )
    table = _TABLES[comparison.kind]
    return has_pair(table, [table.c.run_key == runs.c.key], comparison, dialect)


def _ordered(statement: sa.Select[Any], orders: list[Order]) -> sa.Select[Any]:
    clauses: list[sa.ColumnElement[Any]] = []
    for order in orders:
        if order.kind == "attribute":
            column: sa.ColumnElement[Any] = _COLUMNS[order.key]
            last: sa.ColumnElement[Any] = sa.case((column.is_(None), 1), else_=0)
        else:
            table = _TABLES[order.kind].alias()
            statement = statement.outerjoin(
                table, (table.c.run_key == runs.c.key) & (table.c.key == order.key)
            )
            column = table.c.value
            last = sa.case((column.is_(None), 2), else_=0)
            if order.kind == "metric":
                last = sa.case((table.c.is_nan, 1), (column.is_(None), 2), else_=0)
        clauses += [last, direction(column, order.ascending)]
    if all((order.kind, order.key) != ("attribute", "start_time") for order in orders):
        clauses.append(runs.c.start_ms.desc())
    return statement.order_by(*clauses, runs.c.id)
