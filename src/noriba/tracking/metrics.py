"""Metrics: writing points (the hot path) and reading histories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from noriba.database.tracking_tables import run_metrics, runs

MAX_BULK_POINTS = 25_000
"""Most points of one get-history-bulk answer."""
MAX_BULK_RUNS = 100
MAX_INTERVAL_POINTS = 2500
"""Most points for each run of one get-history-bulk-interval answer."""


class Point(NamedTuple):
    """One value of a metric. ``timestamp_ms`` since the epoch; the value may be NaN or infinite."""

    key: str
    value: float
    timestamp_ms: int
    step: int
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


_COLUMNS = "run_key, key, timestamp_ms, step, value, is_nan, model_id, dataset_name, dataset_digest"
_ADD = f"INSERT INTO run_metrics ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_PUT_LATEST = (
    f"INSERT INTO run_latest_metrics AS l ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (run_key, key) DO UPDATE SET timestamp_ms = excluded.timestamp_ms, step = excluded.step, "
    "value = excluded.value, is_nan = excluded.is_nan, model_id = excluded.model_id, "
    "dataset_name = excluded.dataset_name, dataset_digest = excluded.dataset_digest "
    "WHERE (excluded.step, excluded.timestamp_ms, excluded.value) > (l.step, l.timestamp_ms, l.value)"
)
# Compiled by hand: these run for every logged metric, and building them anew costs more than the database does.
_ADD_BY_DIALECT = {"sqlite": _ADD, "postgresql": _ADD.replace("?", "%s")}
_PUT_LATEST_BY_DIALECT = {"sqlite": _PUT_LATEST, "postgresql": _PUT_LATEST.replace("?", "%s")}


def add_points_in(connection: sa.Connection, run_key: int, points: Sequence[Point]) -> None:
    """Add points to a run. One that is there already changes nothing, so a call may be sent again."""
    rows = [_row(run_key, point) for point in points]
    latest: dict[str, tuple[Any, ...]] = {}
    for row in rows:
        best = latest.get(row[1])
        # (step, timestamp, value), as MLflow decides which point is the latest.
        if best is None or (row[3], row[2], row[4]) > (best[3], best[2], best[4]):
            latest[row[1]] = row
    dialect = connection.dialect.name
    connection.exec_driver_sql(_ADD_BY_DIALECT[dialect], rows)
    connection.exec_driver_sql(_PUT_LATEST_BY_DIALECT[dialect], list(latest.values()))


def _row(run_key: int, point: Point) -> tuple[Any, ...]:
    key, value, timestamp_ms, step, model_id, dataset_name, dataset_digest = point
    is_nan = math.isnan(value)
    return (
        run_key,
        key,
        timestamp_ms,
        step,
        # PostgreSQL tells -0.0 and 0.0 apart in no way; SQLite neither. NaN is the flag beside.
        0.0 if is_nan else value,
        is_nan,
        model_id,
        dataset_name,
        dataset_digest,
    )


def history_in(
    connection: sa.Connection, run_key: int, key: str, *, limit: int | None, offset: int
) -> tuple[list[Point], bool]:
    """All points of a metric by (timestamp, step, value), and whether there are more."""
    statement = (
        sa.select(run_metrics)
        .where(run_metrics.c.run_key == run_key, run_metrics.c.key == key)
        .order_by(*_in_time())
        .offset(offset)
    )
    if limit is not None:
        statement = statement.limit(limit + 1)
    points = [_point(row) for row in connection.execute(statement)]
    if limit is None:
        return points, False
    return points[:limit], len(points) > limit


def histories_in(
    connection: sa.Connection, workspace_id: str, run_ids: Sequence[str], key: str, limit: int
) -> list[tuple[str, Point]]:
    """Points of one metric in several runs, by run id and time, at most ``limit`` in all."""
    statement = (
        sa.select(run_metrics, runs.c.id.label("run_id"))
        .join(runs, runs.c.key == run_metrics.c.run_key)
        .where(runs.c.workspace_id == workspace_id, runs.c.id.in_(list(run_ids)), run_metrics.c.key == key)
        .order_by(runs.c.id, *_in_time())
        .limit(limit)
    )
    return [(row.run_id, _point(row)) for row in connection.execute(statement)]


def sampled_history_in(
    connection: sa.Connection, run_key: int, key: str, *, steps: tuple[int, int] | None, limit: int
) -> list[Point]:
    """At most ``limit`` points spread evenly over a metric's history by step, with its first and last."""
    conditions = [run_metrics.c.run_key == run_key, run_metrics.c.key == key]
    if steps is not None:
        conditions += [run_metrics.c.step >= steps[0], run_metrics.c.step <= steps[1]]
    order = [run_metrics.c.step, run_metrics.c.timestamp_ms, run_metrics.c.value, run_metrics.c.is_nan]
    number = (sa.func.row_number().over(order_by=order) - 1).label("number")
    total = connection.execute(
        sa.select(sa.func.count()).select_from(run_metrics).where(*conditions)
    ).scalar_one()
    statement: sa.Select[Any] = sa.select(run_metrics).where(*conditions).order_by(*order)
    if total > limit:
        # Point i of limit stands at i * (total - 1) // (limit - 1): both ends are in.
        wanted = sorted({index * (total - 1) // max(1, limit - 1) for index in range(limit)} | {total - 1})
        wanted = wanted[-limit:]
        numbered = sa.select(run_metrics, number).where(*conditions).subquery()
        statement = sa.select(numbered).where(numbered.c.number.in_(wanted)).order_by(numbered.c.number)
    return [_point(row) for row in connection.execute(statement)]


def of_columns(
    key: str,
    timestamp_ms: int,
    step: int,
    value: float,
    is_nan: bool,
    model_id: str | None,
    dataset_name: str | None,
    dataset_digest: str | None,
) -> Point:
    """A point from the columns of the metric tables after the run's key, in their order."""
    return Point(
        key, math.nan if is_nan else value, timestamp_ms, step, model_id, dataset_name, dataset_digest
    )


def _in_time() -> tuple[sa.ColumnElement[Any], ...]:
    columns = run_metrics.c
    return columns.timestamp_ms, columns.step, columns.value, columns.is_nan


def _point(row: sa.Row[Any]) -> Point:
    return Point(
        row.key,
        math.nan if row.is_nan else row.value,
        row.timestamp_ms,
        row.step,
        row.model_id,
        row.dataset_name,
        row.dataset_digest,
    )
