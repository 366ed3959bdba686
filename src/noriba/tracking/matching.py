"""Searches evaluated in memory, for things that are few (registered models). The SQL twin is conditions.py."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from noriba.tracking.filters import Comparison, Kind, Order

T = TypeVar("T")
Fields = Mapping[Kind, Mapping[str, Any]]
"""What a thing is by kind: ``{"attribute": {"name": …}, "tag": {…}}``. A dataset key maps to a list of values."""

_SYMBOLS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def matches(fields: Fields, comparisons: Sequence[Comparison]) -> bool:
    """Whether all comparisons hold. What a thing does not have matches nothing but IS NULL."""
    return all(_matches(fields, comparison) for comparison in comparisons)


def _matches(fields: Fields, comparison: Comparison) -> bool:
    held = fields.get(comparison.kind, {}).get(comparison.key)
    if comparison.operator == "IS NULL":
        return held is None
    if comparison.operator == "IS NOT NULL":
        return held is not None
    if isinstance(held, list):
        return any(_holds(value, comparison.operator, comparison.value) for value in held)
    return held is not None and _holds(held, comparison.operator, comparison.value)


def _holds(held: Any, symbol: str, value: Any) -> bool:
    if isinstance(held, float) and math.isnan(held):
        return symbol == "!="
    if symbol in _SYMBOLS:
        return _SYMBOLS[symbol](held, value)
    if symbol == "IN":
        return held in value
    if symbol == "NOT IN":
        return held not in value
    return like(str(held), str(value), ignore_case=symbol == "ILIKE")


def like(text: str, pattern: str, *, ignore_case: bool) -> bool:
    """SQL's LIKE: ``%`` is any text, ``_`` any character; there is no escape character."""
    parts = {"%": ".*", "_": "."}
    expression = "".join(parts.get(character) or re.escape(character) for character in pattern)
    return re.fullmatch(expression, text, re.DOTALL | (re.IGNORECASE if ignore_case else 0)) is not None


def ordered(things: list[T], orders: Sequence[Order], fields: Callable[[T], Mapping[str, Any]]) -> list[T]:
    """The things in order; ``fields`` gives the values that can be ordered by. The sort is stable."""
    for order in reversed(orders):
        things = sorted(things, key=lambda thing: fields(thing)[order.key], reverse=not order.ascending)
    return things
