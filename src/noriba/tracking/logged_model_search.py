"""Search of logged models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.database.tracking_tables import (
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
)
from noriba.tracking.conditions import compare, direction, has_pair, metric_condition
from noriba.tracking.errors import invalid
from noriba.tracking.filters import Comparison, Order, parse_filter, parse_order
from noriba.tracking.languages import LOGGED_MODELS
from noriba.tracking.logged_models import LoggedModel, load, select

_COLUMNS: dict[str, sa.Column[Any]] = {
    "name": logged_models.c.name,
    "model_id": logged_models.c.id,
    "model_type": logged_models.c.model_type,
    "status": logged_models.c.status,
    "source_run_id": logged_models.c.source_run_id,
    "experiment_id": logged_models.c.experiment_id,
    "creation_timestamp": logged_models.c.created_ms,
    "last_updated_timestamp": logged_models.c.updated_ms,
}
_PAIRS = {"param": logged_model_params, "tag": logged_model_tags}


class DatasetChoice(msgspec.Struct, frozen=True):
    """Only metrics on this dataset count; any digest when it is None."""

    name: str
    digest: str | None = None


class ModelOrder(msgspec.Struct, frozen=True):
    """``field`` is an attribute or ``metrics.<name>``, whose value may be that on one dataset."""

    field: str
    ascending: bool = True
    dataset: DatasetChoice | None = None


def search_in(
    connection: sa.Connection,
    workspace_id: str,
    *,
    experiment_ids: Sequence[str],
    filter_text: str | None,
    datasets: Sequence[DatasetChoice],
    order_by: Sequence[ModelOrder],
    limit: int,
    offset: int,
) -> tuple[list[LoggedModel], bool]:
    """The models that match, and whether there are more; the newest first unless ordered. Raises BadRequest."""
    dialect = connection.dialect.name
    comparisons = parse_filter(filter_text, LOGGED_MODELS)
    statement = select().where(
        logged_models.c.workspace_id == workspace_id,
        logged_models.c.lifecycle_stage == "active",
        logged_models.c.experiment_id.in_(list(experiment_ids)),
        *[_condition(comparison, datasets, dialect) for comparison in comparisons],
    )
    if datasets and all(comparison.kind != "metric" for comparison in comparisons):
        statement = statement.where(_metrics_of_model(*_on(datasets)).exists())
    statement = _ordered(statement, order_by)
    found = load(connection, statement.limit(limit + 1).offset(offset))
    return found[:limit], len(found) > limit


def _condition(
    comparison: Comparison, datasets: Sequence[DatasetChoice], dialect: str
) -> sa.ColumnElement[bool]:
    if comparison.kind == "attribute":
        return compare(_COLUMNS[comparison.key], comparison.operator, comparison.value, dialect)
    if comparison.kind == "metric":
        columns = logged_model_metrics.c
        return _metrics_of_model(
            columns.key == comparison.key,
            metric_condition(columns.value, columns.is_nan, comparison, dialect),
            *_on(datasets),
        ).exists()
    table = _PAIRS[comparison.kind]
    return has_pair(table, [table.c.model_key == logged_models.c.key], comparison, dialect)


def _metrics_of_model(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return (
        sa.select(sa.literal(1))
        .select_from(logged_model_metrics)
        .where(logged_model_metrics.c.model_key == logged_models.c.key, *conditions)
    )


def _on(datasets: Sequence[DatasetChoice]) -> list[sa.ColumnElement[bool]]:
    columns = logged_model_metrics.c
    choices = [
        sa.and_(
            columns.dataset_name == dataset.name,
            *([columns.dataset_digest == dataset.digest] if dataset.digest else []),
        )
        for dataset in datasets
    ]
    return [sa.or_(*choices)] if choices else []


def _ordered(statement: sa.Select[Any], order_by: Sequence[ModelOrder]) -> sa.Select[Any]:
    clauses: list[sa.ColumnElement[Any]] = []
    parsed: list[Order] = []
    for wanted in order_by:
        if "." in wanted.field:
            kind, _, key = wanted.field.partition(".")
            if kind not in ("metric", "metrics"):
                raise invalid(f"Invalid order by field name: {wanted.field}. Only metrics are supported.")
            order = Order("metric", key.strip('`"'), wanted.ascending)
        else:
            order = parse_order([wanted.field], LOGGED_MODELS)[0]
        parsed.append(order)
        column = _COLUMNS[order.key] if order.kind == "attribute" else _latest(order.key, wanted.dataset)
        clauses += [sa.case((column.is_(None), 1), else_=0), direction(column, wanted.ascending)]
    if all(order.key != "creation_timestamp" for order in parsed):
        clauses.append(logged_models.c.created_ms.desc())
    return statement.order_by(*clauses, logged_models.c.id)


def _latest(key: str, dataset: DatasetChoice | None) -> sa.ColumnElement[Any]:
    """The newest value of a metric of the model of the outer query, NULL without one."""
    columns = logged_model_metrics.c
    return (
        sa.select(sa.case((columns.is_nan, None), else_=columns.value))
        .where(
            columns.model_key == logged_models.c.key,
            columns.key == key,
            *(_on([dataset]) if dataset else []),
        )
        .order_by(columns.timestamp_ms.desc(), columns.step.desc(), columns.run_id)
        .limit(1)
        .correlate(logged_models)
        .scalar_subquery()
    )
