"""From parsed searches (filters.py) to SQL that SQLite and PostgreSQL understand alike."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from noriba.tracking.filters import Comparison

Expression = sa.ColumnElement[Any]


_SYMBOLS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compare(column: Expression, symbol: str, value: Any, dialect: str) -> sa.ColumnElement[bool]:
    """``column symbol value``; LIKE minds case and has no escape character, on every database."""
    condition: sa.ColumnElement[bool]
    if symbol in _SYMBOLS:
        condition = _SYMBOLS[symbol](column, value)
    elif symbol == "IN":
        condition = column.in_(list(value))
    elif symbol == "NOT IN":
        condition = column.not_in(list(value))
    elif symbol == "LIKE":
        # SQLite's LIKE ignores case; GLOB does not.
        condition = (
            column.op("GLOB", is_comparison=True)(_glob(value))
            if dialect == "sqlite"
            else column.like(value, escape="")
        )
    elif symbol == "ILIKE":
        condition = (
            sa.func.lower(column).like(sa.func.lower(value))
            if dialect == "sqlite"
            else column.ilike(value, escape="")
        )
    else:
        raise ValueError(symbol)
    return condition


def _glob(pattern: str) -> str:
    translated = []
    for character in pattern:
        if character in "*?[":
            translated.append(f"[{character}]")
        else:
            translated.append({"%": "*", "_": "?"}.get(character, character))
    return "".join(translated)


def has_pair(
    table: sa.Table, owner: list[sa.ColumnElement[bool]], comparison: Comparison, dialect: str
) -> sa.ColumnElement[bool]:
    """Whether a (key, value) table has a row for the comparison; ``owner`` ties its rows to the outer query."""
    rows = sa.select(sa.literal(1)).select_from(table).where(*owner, table.c.key == comparison.key)
    if comparison.operator == "IS NULL":
        return ~rows.exists()
    if comparison.operator != "IS NOT NULL":
        rows = rows.where(compare(table.c.value, comparison.operator, comparison.value, dialect))
    return rows.exists()


def metric_condition(
    value: Expression, is_nan: Expression, comparison: Comparison, dialect: str
) -> sa.ColumnElement[bool]:
    """A condition on a metric. NaN differs from every number and is neither more nor less."""
    condition = compare(value, comparison.operator, comparison.value, dialect)
    if comparison.operator == "!=":
        return sa.or_(condition, is_nan)
    return sa.and_(condition, sa.not_(is_nan))


def direction(column: Expression, ascending: bool) -> Expression:
    """ASC or DESC."""
    return column.asc() if ascending else column.desc()
