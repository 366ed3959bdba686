"""The search language: what it accepts, and that SQL and a plain evaluation in memory agree on what it means."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noriba.database import Database
from noriba.models.errors import BadRequest
from noriba.tracking import experiments, metrics, run_search, runs
from noriba.tracking.filters import LISTS, NULLS, Comparison, Order, parse_filter, parse_order
from noriba.tracking.languages import EXPERIMENTS, LOGGED_MODELS, MODEL_VERSIONS, RUNS
from noriba.tracking.matching import Fields, like, matches
from noriba.tracking.metrics import Point

WS = "ws"


def test_the_forms_that_mlflow_documents() -> None:
    text = (
        "metrics.rmse < 0.5 AND metrics.`a b` >= -1e-3 and params.\"max depth\" = '10' "
        "AND tags.mlflow.source.name != \"x.py\" AND attributes.status = 'FINISHED' AND run_id IN ('a', 'b') "
        "AND start_time > 1664067852747 AND tag.gone IS NULL AND param.there is not null "
        "AND `metric`.`m/x` = 1 AND dataset.name ILIKE '%iris%' AND run_name like 'it''s%' AND run_id NOT IN ('c',)"
    )
    assert parse_filter(text, RUNS) == [
        Comparison("metric", "rmse", "<", 0.5),
        Comparison("metric", "a b", ">=", -1e-3),
        Comparison("param", "max depth", "=", "10"),
        Comparison("tag", "mlflow.source.name", "!=", "x.py"),
        Comparison("attribute", "status", "=", "FINISHED"),
        Comparison("attribute", "run_id", "IN", ("a", "b")),
        Comparison("attribute", "start_time", ">", 1664067852747),
        Comparison("tag", "gone", "IS NULL", None),
        Comparison("param", "there", "IS NOT NULL", None),
        Comparison("metric", "m/x", "=", 1),
        Comparison("dataset", "name", "ILIKE", "%iris%"),
        Comparison("attribute", "run_name", "LIKE", "it's%"),
        Comparison("attribute", "run_id", "NOT IN", ("c",)),
    ]


@pytest.mark.parametrize("text", [None, "", "   "])
def test_no_filter(text: str | None) -> None:
    assert parse_filter(text, RUNS) == []


@pytest.mark.parametrize(
    "text",
    [
        "metrics.a",
        "metrics.a >",
        "metrics.a > 'x'",
        "metrics.a LIKE 'x'",
        "metrics.a IS NULL",
        "params.a = 1",
        "params.a = x",
        "params.a > '1'",
        "params.a IN ('x')",
        "nonsense.a = '1'",
        "nonsense = '1'",
        "status = 'a' OR status = 'b'",
        "(status = 'a')",
        "status = 'a' status = 'b'",
        "status = 'a' AND",
        "run_id IN ()",
        "run_id IN (1)",
        "run_id IN ('a'",
        "status IN ('a')",
        "start_time = 'now'",
        "start_time LIKE '1'",
        "tags. = 'a'",
        "tags.a == 'b'",
        "tags.a <> 'b'",
        "tags.a = 'unterminated",
        "tags.a = 'b'; DROP TABLE runs",
        "dataset.nonsense = 'a'",
        "status = 'a' -- comment",
    ],
)
def test_what_is_no_filter_is_refused_with_mlflows_code(text: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse_filter(text, RUNS)
    assert error.value.code == "INVALID_PARAMETER_VALUE"


def test_each_kind_of_thing_has_its_own_words() -> None:
    assert parse_filter("experiment_id IN ('0')", EXPERIMENTS)
    assert parse_filter("version_number >= 2", MODEL_VERSIONS)
    assert parse_filter("creation_timestamp > 5", LOGGED_MODELS) == [
        Comparison("attribute", "creation_timestamp", ">", 5)
    ]
    with pytest.raises(BadRequest):
        parse_filter("metrics.a > 1", EXPERIMENTS)


def test_orders() -> None:
    assert parse_order(["metrics.`a b` DESC", "start_time", "tags.x asc", "Created desc"][:3], RUNS) == [
        Order("metric", "a b", False),
        Order("attribute", "start_time", True),
        Order("tag", "x", True),
    ]
    for bad in (
        ["metrics.a up"],
        ["metrics.a", "metrics.a desc"],
        ["nonsense"],
        [""],
        ["a; b"],
        ["dataset.name"],
    ):
        with pytest.raises(BadRequest):
            parse_order(bad, RUNS)


def test_like_is_sqls() -> None:
    assert like("a.b", "a.b", ignore_case=False)
    assert not like("axb", "a.b", ignore_case=False)
    assert like("a\nb", "a%", ignore_case=False)
    assert not like("ABC", "abc", ignore_case=False)
    assert like("ABC", "a_c", ignore_case=True)


# --- rendered filters parse to what they were rendered from

KEYS = st.text(st.characters(codec="utf-8", exclude_characters="`\x00"), min_size=1, max_size=8)
STRINGS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**12), 10**12)


@st.composite
def any_comparison(draw: st.DrawFn) -> Comparison:
    kind = draw(st.sampled_from(["metric", "param", "tag"]))
    operator = draw(st.sampled_from(sorted(RUNS.operators[kind])))
    value: Any = None
    if kind == "metric":
        value = draw(NUMBERS)
    elif operator not in NULLS:
        value = draw(STRINGS)
    return Comparison(kind, draw(KEYS), operator, value)


def render(comparison: Comparison, quote: str) -> str:
    value = comparison.value
    if value is None:
        shown = ""
    elif isinstance(value, str):
        shown = quote + value.replace(quote, quote * 2) + quote
    elif isinstance(value, tuple):
        shown = "(" + ", ".join(quote + item.replace(quote, quote * 2) + quote for item in value) + ")"
    else:
        shown = repr(value)
    name = (
        f"`{comparison.key}`" if comparison.kind == "attribute" else f"{comparison.kind}s.`{comparison.key}`"
    )
    return f"{name} {comparison.operator} {shown}"


@given(st.lists(any_comparison(), min_size=1, max_size=4), st.sampled_from("'\""))
def test_rendered_filters_parse_to_themselves(comparisons: list[Comparison], quote: str) -> None:
    text = " AND ".join(render(comparison, quote) for comparison in comparisons)
    assert parse_filter(text, RUNS) == comparisons


@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert all(
            comparison.kind in ("attribute", *RUNS.operators) for comparison in parse_filter(text, RUNS)
        )


# --- SQL means what a plain evaluation in memory means

WORDS = st.text("aAbB%_*?[]\\'é ", max_size=4)
NAMES = st.sampled_from(["k", "K", "a b"])
VALUES = st.sampled_from([0.0, 1.0, -1.5, math.nan, math.inf, -math.inf, 1e300])


@st.composite
def any_run(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "params": draw(st.dictionaries(NAMES, WORDS, max_size=2)),
        "tags": draw(st.dictionaries(NAMES, WORDS, max_size=2)),
        "metrics": draw(st.dictionaries(NAMES, VALUES, max_size=2)),
        "datasets": draw(st.lists(WORDS.filter(bool), max_size=2, unique=True)),
        "name": draw(WORDS.filter(bool)),
        "start": draw(st.integers(1, 5)),
    }


@st.composite
def any_search(draw: st.DrawFn) -> Comparison:
    kind = draw(st.sampled_from(["metric", "param", "tag", "dataset", "text", "number"]))
    if kind == "number":
        operator = draw(st.sampled_from(["=", "!=", "<", ">", "<=", ">="]))
        return Comparison("attribute", "start_time", operator, draw(st.integers(0, 6)))
    if kind == "text":
        operator = draw(st.sampled_from(["=", "!=", "LIKE", "ILIKE"]))
        return Comparison("attribute", "run_name", operator, draw(WORDS))
    operator = draw(st.sampled_from(sorted(RUNS.operators[kind])))
    key = "name" if kind == "dataset" else draw(NAMES)
    value: Any = draw(WORDS)
    if kind == "metric":
        value = draw(VALUES.filter(math.isfinite))
    elif operator in NULLS:
        value = None
    elif operator in LISTS:
        value = tuple(draw(st.lists(WORDS, min_size=1, max_size=3)))
    return Comparison(kind, key, operator, value)


def fields(run: dict[str, Any]) -> Fields:
    return {
        "attribute": {"run_name": run["name"], "start_time": run["start"]},
        "param": run["params"],
        "tag": run["tags"],
        "metric": run["metrics"],
        "dataset": {"name": run["datasets"]} if run["datasets"] else {},
    }


def _is_ascii_or_exact(comparison: Comparison) -> bool:
    # How letters beyond ASCII are folded is the database's business.
    return comparison.operator != "ILIKE" or str(comparison.value).isascii()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=st.lists(any_run(), min_size=1, max_size=5),
    comparisons=st.lists(any_search().filter(_is_ascii_or_exact), min_size=1, max_size=3),
)
def test_sql_agrees_with_memory(
    database: Database, found: list[dict[str, Any]], comparisons: list[Comparison]
) -> None:
    class Undo(Exception):
        pass

    answers: dict[str, Any] = {}

    def try_out(connection: sa.Connection) -> None:
        experiment = experiments.create_in(connection, WS, "e", tags={}, artifact_location=None, now_ms=1)
        for index, run in enumerate(found):
            made = runs.create_in(
                connection,
                WS,
                run_id=f"r{index}",
                experiment_id=experiment,
                name=run["name"],
                user_id="u",
                start_ms=run["start"],
                tags=run["tags"],
            )
            runs.add_params_in(connection, made.key, made.id, list(run["params"].items()))
            points = [Point(key, value, 1, 0) for key, value in run["metrics"].items()]
            if points:
                metrics.add_points_in(connection, made.key, points)
            runs.add_datasets_in(
                connection,
                made.key,
                [runs.Dataset(document={"name": name, "digest": "d"}, tags=[]) for name in run["datasets"]],
            )
        text = " AND ".join(render(comparison, "'") for comparison in comparisons)
        result, _ = run_search.search_in(
            connection,
            WS,
            experiment_ids=[experiment],
            filter_text=text,
            order_by=None,
            view="ALL",
            limit=100,
            offset=0,
        )
        answers["sql"] = {run.id for run in result}
        raise Undo

    with pytest.raises(Undo):
        database.write_now(try_out)
    expected = {f"r{index}" for index, run in enumerate(found) if matches(fields(run), comparisons)}
    assert answers["sql"] == expected
