"""MLflow's search language: filters and orders, parsed to data (pure).

    filter     = comparison { AND comparison }
    comparison = identifier operator value
               | identifier [NOT] IN ( string, … )
               | identifier IS [NOT] NULL
    identifier = [kind "."] key          metrics.rmse, params."max depth", tags.`mlflow.runName`, start_time
    operator   = = | != | < | > | <= | >= | LIKE | ILIKE
    value      = number | 'string' | "string"        a quote inside a string is doubled
    order      = identifier [ASC | DESC]

Which kinds, keys and operators there are depends on what is searched: a ``Language`` says so. Compilation to SQL is
in ``conditions.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from noriba.models.errors import BadRequest
from noriba.tracking.errors import invalid

Kind = Literal["attribute", "metric", "param", "tag", "dataset"]
Value = str | int | float | tuple[str, ...] | None

NUMERIC = frozenset({"=", "!=", "<", ">", "<=", ">="})
TEXTUAL = frozenset({"=", "!=", "LIKE", "ILIKE"})
LISTS = frozenset({"IN", "NOT IN"})
NULLS = frozenset({"IS NULL", "IS NOT NULL"})
MAX_FILTER = 100_000

_KINDS: dict[str, Kind] = {
    "attribute": "attribute",
    "attributes": "attribute",
    "attr": "attribute",
    "run": "attribute",
    "metric": "metric",
    "metrics": "metric",
    "parameter": "param",
    "parameters": "param",
    "param": "param",
    "params": "param",
    "tag": "tag",
    "tags": "tag",
    "dataset": "dataset",
    "datasets": "dataset",
}


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said in searches of one kind of thing.

    ``texts`` and ``numbers`` map attribute names, with their other spellings, to the canonical ones.
    ``text_operators`` and ``listed`` (attributes that take IN) bound textual attributes; ``operators`` the other
    kinds; a kind without operators does not exist here. ``orders`` maps names that can be ordered by (attributes).
    """

    texts: Mapping[str, str]
    numbers: Mapping[str, str]
    operators: Mapping[Kind, frozenset[str]]
    listed: frozenset[str] = frozenset()
    orders: Mapping[str, str]
    order_kinds: frozenset[Kind] = frozenset({"attribute"})
    dataset_keys: frozenset[str] = frozenset()


class Comparison(msgspec.Struct, frozen=True):
    """One condition. ``operator`` is upper case; the value is None for IS [NOT] NULL."""

    kind: Kind
    key: str
    operator: str
    value: Value


class Order(msgspec.Struct, frozen=True):
    """One key to order by."""

    kind: Kind
    key: str
    ascending: bool


def parse_filter(text: str | None, language: Language) -> list[Comparison]:
    """The conditions of a filter, all of which must hold. Raises BadRequest that names the bad part."""
    if not text or not text.strip():
        return []
    if len(text) > MAX_FILTER:
        raise invalid(f"The filter is longer than {MAX_FILTER} characters. Use a shorter one.")
    return _Parser(text, language).filter()


def parse_order(clauses: list[str] | None, language: Language) -> list[Order]:
    """The keys to order by. Raises BadRequest for unknown or repeated ones."""
    orders: list[Order] = []
    for clause in clauses or []:
        order = _Parser(clause, language).order()
        if any((known.kind, known.key) == (order.kind, order.key) for known in orders):
            raise invalid(f"`order_by` contains duplicate fields: {clauses}")
        orders.append(order)
    return orders


_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<single>'(?:[^']|'')*')
    | (?P<double>"(?:[^"]|"")*")
    | (?P<backtick>`[^`]*`)
    | (?P<word>[^\W\d]\w*)
    | (?P<operator><=|>=|!=|<>|==|=|<|>)
    | (?P<mark>[.,()])
    )""",
    re.VERBOSE,
)
_SEGMENT = re.compile(r"\w+(?:[.\-/]\w+)*")


class _Token(msgspec.Struct):
    kind: str
    text: str
    start: int
    end: int


class _Parser:
    def __init__(self, text: str, language: Language) -> None:
        self.text = text
        self.language = language
        self.position = 0

    # --- tokens

    def peek(self) -> _Token | None:
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            if not self.text[self.position :].strip():
                return None
            raise self.error(self.position)
        kind = match.lastgroup or ""
        return _Token(kind, match[kind], match.start(kind), match.end())

    def next(self) -> _Token:
        token = self.peek()
        if token is None:
            raise invalid(f"Invalid clause(s) in filter string: '{self.text}' ends too early.")
        self.position = token.end
        return token

    def error(self, position: int) -> BadRequest:
        rest = self.text[position:].strip()
        return invalid(
            f"Invalid clause(s) in filter string: '{rest[:100]}' in '{self.text[:500]}'. Write comparisons such as "
            "metrics.rmse < 0.5 joined by AND; strings in quotes, names with special characters in backticks."
        )

    def word(self, token: _Token | None) -> str:
        return token.text.upper() if token is not None and token.kind == "word" else ""

    # --- grammar

    def filter(self) -> list[Comparison]:
        found = [self.comparison()]
        while (token := self.peek()) is not None:
            if self.word(token) != "AND":
                raise self.error(token.start)
            self.position = token.end
            found.append(self.comparison())
        return found

    def order(self) -> Order:
        shown = self.text
        try:
            kind, key = self.identifier(for_order=True)
            token = self.peek()
            ascending = True
            if token is not None:
                direction = self.word(token)
                if direction not in ("ASC", "DESC"):
                    raise self.error(token.start)
                ascending = direction == "ASC"
                self.position = token.end
            if self.peek() is not None:
                raise self.error(self.position)
        except BadRequest as error:
            raise invalid(f"Invalid order_by clause '{shown}': {error.message}") from error
        return Order(kind, key, ascending)

    def identifier(self, *, for_order: bool = False) -> tuple[Kind, str]:
        first = self.next()
        if first.kind not in ("word", "backtick", "double"):
            raise self.error(first.start)
        name = _unquoted(first)
        following = self.peek() if self.text[self.position : self.position + 1] == "." else None
        if following is None or following.text != ".":
            return "attribute", self.attribute(name, for_order)
        self.position = following.end
        kind = _KINDS.get(name)
        if kind is None or (kind != "attribute" and kind not in self.language.operators):
            raise invalid(f"Invalid entity type '{name}'. Valid values are {self.kinds()}")
        if for_order and kind not in self.language.order_kinds:
            raise invalid(f"Can not order by {kind}.")
        key = self.key()
        if kind == "attribute":
            return kind, self.attribute(key, for_order)
        if kind == "dataset" and key not in self.language.dataset_keys:
            raise invalid(
                f"Invalid dataset key '{key}' specified. Valid keys are {sorted(self.language.dataset_keys)}"
            )
        return kind, key

    def key(self) -> str:
        start = self.position
        quoted = self.text[start : start + 1]
        if quoted and quoted in "`\"'":
            token = self.next()
            return _unquoted(token)
        match = _SEGMENT.match(self.text, start)
        if match is None:
            raise self.error(start)
        self.position = match.end()
        return match[0]

    def attribute(self, name: str, for_order: bool) -> str:
        language = self.language
        if for_order:
            known = language.orders
        else:
            known = {**language.texts, **language.numbers}
        if name not in known:
            raise invalid(f"Invalid attribute key '{name}' specified. Valid keys are {sorted(known)}")
        return known[name]

    def kinds(self) -> list[str]:
        return ["attribute", *self.language.operators]

    def comparison(self) -> Comparison:
        start = self.position
        kind, key = self.identifier()
        operator = self.operator()
        numeric = kind == "metric" or (kind == "attribute" and key in self.language.numbers.values())
        self.check_operator(kind, key, operator, numeric)
        if operator in NULLS:
            return Comparison(kind, key, operator, None)
        if operator in LISTS:
            return Comparison(kind, key, operator, self.strings())
        token = self.next()
        if numeric:
            if token.kind != "number":
                raise invalid(
                    f"Expected numeric value type for {kind} '{key}'. Found {token.text} in "
                    f"'{self.text[start : token.end].strip()}'"
                )
            return Comparison(kind, key, operator, _number(token.text, whole=kind == "attribute"))
        if token.kind not in ("single", "double"):
            raise invalid(
                f"Expected a quoted string value for {kind} '{key}' (e.g. 'my-value'). Got value {token.text}"
            )
        return Comparison(kind, key, operator, _unquoted(token))

    def operator(self) -> str:
        token = self.next()
        if token.kind == "operator":
            return token.text
        word = self.word(token)
        if word in ("LIKE", "ILIKE", "IN"):
            return word
        second = self.word(self.peek())
        if word == "NOT" and second == "IN":
            self.next()
            return "NOT IN"
        if word == "IS" and second == "NULL":
            self.next()
            return "IS NULL"
        if word == "IS" and second == "NOT":
            self.next()
            if self.word(self.peek()) == "NULL":
                self.next()
                return "IS NOT NULL"
        raise self.error(token.start)

    def check_operator(self, kind: Kind, key: str, operator: str, numeric: bool) -> None:
        if kind == "attribute":
            allowed = (
                NUMERIC if numeric else TEXTUAL | (LISTS if key in self.language.listed else frozenset())
            )
        else:
            allowed = self.language.operators[kind]
        if operator not in allowed:
            raise invalid(
                f"Invalid comparator '{operator}' for {kind} '{key}': not one of {sorted(allowed)}."
            )

    def strings(self) -> tuple[str, ...]:
        start = self.position
        if self.next().text != "(":
            raise self.error(start)
        values: list[str] = []
        while True:
            token = self.next()
            if token.text == ")" and token.kind == "mark" and values:
                return tuple(values)
            if token.kind not in ("single", "double"):
                raise invalid(
                    "While parsing a list in the query, expected a non-empty list of string values, but got "
                    f"{token.text}"
                )
            values.append(_unquoted(token))
            mark = self.next()
            if mark.text == ")":
                return tuple(values)
            if mark.text != ",":
                raise self.error(mark.start)


def _unquoted(token: _Token) -> str:
    if token.kind == "single":
        return token.text[1:-1].replace("''", "'")
    if token.kind == "double":
        return token.text[1:-1].replace('""', '"')
    if token.kind == "backtick":
        return token.text[1:-1]
    return token.text


def _number(text: str, *, whole: bool) -> int | float:
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if whole and value.is_integer():
        return int(value)
    return value
