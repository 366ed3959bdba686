"""Runs, metrics and experiments on both databases."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noriba.database import Database
from noriba.models.errors import BadRequest, NotFound
from noriba.tracking import experiments, logged_models, metrics, run_search, runs, store
from noriba.tracking.logged_model_search import DatasetChoice, ModelOrder
from noriba.tracking.logged_model_search import search_in as search_models_in
from noriba.tracking.metrics import Point
from noriba.tracking.service import Tracking
from noriba.tracking.statuses import RunStatus

WS = "ws"


@pytest.fixture
def experiment(database: Database) -> str:
    return database.write_now(
        lambda c: experiments.create_in(c, WS, "exp", tags={"a": "b"}, artifact_location=None, now_ms=5)
    )


def new_run(database: Database, experiment: str, run_id: str = "run", **values: Any) -> runs.Run:
    options = {"name": "n", "user_id": "u", "start_ms": 10, "tags": {}, **values}
    return database.write_now(
        lambda c: runs.create_in(c, WS, run_id=run_id, experiment_id=experiment, **options)
    )


def log(database: Database, run: runs.Run, *points: Point) -> None:
    database.write_now(lambda c: metrics.add_points_in(c, run.key, points))


def latest(database: Database, run: runs.Run) -> dict[str, Point]:
    found = database.read_now(lambda c: runs.get_in(c, WS, run.id))
    return {point.key: point for point in found.metrics}


def test_a_param_never_changes(database: Database, experiment: str) -> None:
    run = new_run(database, experiment)
    add = runs.add_params_in
    database.write_now(lambda c: add(c, run.key, run.id, [("a", "1"), ("b", "2")]))
    database.write_now(lambda c: add(c, run.key, run.id, [("a", "1")]))
    with pytest.raises(BadRequest, match="Changing param values is not allowed"):
        database.write_now(lambda c: add(c, run.key, run.id, [("c", "3"), ("a", "other")]))
    assert database.read_now(lambda c: runs.get_in(c, WS, run.id)).params == {"a": "1", "b": "2"}


def test_the_latest_point_has_the_highest_step_then_time_then_value(
    database: Database, experiment: str
) -> None:
    run = new_run(database, experiment)
    log(database, run, Point("m", 1.0, 100, 5), Point("m", 9.0, 200, 4))
    assert latest(database, run)["m"].value == 1.0
    log(database, run, Point("m", 2.0, 50, 5))
    assert latest(database, run)["m"].value == 1.0, "same step, earlier"
    log(database, run, Point("m", 3.0, 100, 5))
    assert latest(database, run)["m"].value == 3.0, "same step and time, higher"
    log(database, run, Point("m", -1.0, 1, 6))
    assert latest(database, run)["m"].value == -1.0


def test_nan_and_infinities_come_back(database: Database, experiment: str) -> None:
    run = new_run(database, experiment)
    log(
        database,
        run,
        Point("nan", math.nan, 1, 0),
        Point("inf", math.inf, 1, 0),
        Point("ninf", -math.inf, 1, 0),
        Point("big", 1.7976931348623157e308, 1, 0),
        Point("tiny", 5e-324, 1, 0),
    )
    found = latest(database, run)
    assert math.isnan(found["nan"].value)
    assert found["inf"].value == math.inf
    assert found["ninf"].value == -math.inf
    assert found["big"].value == 1.7976931348623157e308
    assert found["tiny"].value == 5e-324
    history, _ = database.read_now(lambda c: metrics.history_in(c, run.key, "nan", limit=None, offset=0))
    assert math.isnan(history[0].value)


def test_the_same_call_again_changes_nothing(database: Database, experiment: str) -> None:
    run = new_run(database, experiment)
    points = (Point("m", 1.0, 1, 1), Point("m", 1.0, 1, 1), Point("m", math.nan, 1, 1))
    log(database, run, *points)
    log(database, run, *points)
    history, more = database.read_now(lambda c: metrics.history_in(c, run.key, "m", limit=None, offset=0))
    assert len(history) == 2
    assert not more


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]), st.floats(width=32), st.integers(0, 3), st.integers(-2, 2)
        ).map(lambda values: Point(*values)),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 5),
)
def test_history_and_latest_are_those_of_a_plain_list(
    database: Database, points: list[Point], cut: int
) -> None:
    class Undo(Exception):
        pass

    def plain(point: Point) -> float:
        return 0.0 if math.isnan(point.value) else point.value

    def try_out(connection: sa.Connection) -> None:
        experiment = experiments.create_in(connection, WS, "e", tags={}, artifact_location=None, now_ms=1)
        run = runs.create_in(
            connection,
            WS,
            run_id="h",
            experiment_id=experiment,
            name="n",
            user_id="u",
            start_ms=1,
            tags={},
        )
        metrics.add_points_in(connection, run.key, points[:cut])
        if points[cut:]:
            metrics.add_points_in(connection, run.key, points[cut:])
        known = {point.key: point for point in runs.get_in(connection, WS, "h").metrics}
        for key in {point.key for point in points}:
            mine = {(p.timestamp_ms, p.step, plain(p), math.isnan(p.value)) for p in points if p.key == key}
            history, _ = metrics.history_in(connection, run.key, key, limit=None, offset=0)
            found = [(p.timestamp_ms, p.step, plain(p), math.isnan(p.value)) for p in history]
            assert found == sorted(mine)
            best = max((step, at, value) for at, step, value, _ in mine)
            assert (known[key].step, known[key].timestamp_ms, plain(known[key])) == best
        raise Undo

    with pytest.raises(Undo):
        database.write_now(try_out)


def test_history_in_pages_and_thinned_out(database: Database, experiment: str) -> None:
    run = new_run(database, experiment)
    log(database, run, *(Point("m", float(index), index, index) for index in range(1000)))
    first, more = database.read_now(lambda c: metrics.history_in(c, run.key, "m", limit=400, offset=0))
    last, none = database.read_now(lambda c: metrics.history_in(c, run.key, "m", limit=400, offset=800))
    assert (len(first), more, len(last), none) == (400, True, 200, False)

    def sampled(limit: int, steps: tuple[int, int] | None = None) -> list[int]:
        points = database.read_now(
            lambda c: metrics.sampled_history_in(c, run.key, "m", steps=steps, limit=limit)
        )
        return [point.step for point in points]

    assert sampled(5) == [0, 249, 499, 749, 999]
    assert sampled(1) == [999]
    assert len(sampled(2500)) == 1000
    assert sampled(3, (100, 200)) == [100, 150, 200]


def test_a_jobs_status_is_not_the_clients_to_change(database: Database, experiment: str) -> None:
    database.write_now(
        lambda c: store.create_run_in(
            c,
            workspace_id=WS,
            run_id="job",
            experiment_name="exp",
            run_name="shown",
            user_id="u",
            start_time=1.0,
            tags={},
        )
    )
    database.write_now(lambda c: store.set_run_status_in(c, WS, "job", "Running", None))
    after = database.write_now(
        lambda c: runs.update_in(c, WS, "job", status=RunStatus.FINISHED, end_ms=9, name="renamed")
    )
    assert (after.status, after.end_ms, after.name) == ("RUNNING", None, "renamed")
    child = new_run(database, experiment, "child", tags={"mlflow.parentRunId": "job"})
    own = new_run(database, experiment, "own")
    ended = database.write_now(
        lambda c: runs.update_in(c, WS, own.id, status=RunStatus.FAILED, end_ms=9, name=None)
    )
    assert (ended.status, ended.end_ms) == ("FAILED", 9)
    database.write_now(lambda c: store.set_run_status_in(c, WS, "job", "Canceled", 2.0))
    left = database.read_now(lambda c: runs.get_in(c, WS, child.id))
    assert (left.status, left.end_ms) == ("KILLED", 2000), "what a killed job left running is over"


def test_runs_of_notebooks_are_told_apart_from_jobs(database: Database, experiment: str) -> None:
    for index in range(3):
        new_run(database, experiment, f"note{index}", tags={"mlflow.user": "u", "mine": "x"})
    page, following = database.read_now(lambda c: store.runs_without_job(c, WS, limit=2))
    assert [run.id for run in page] == ["note2", "note1"]
    rest, end = database.read_now(lambda c: store.runs_without_job(c, WS, limit=2, before_key=following))
    assert [run.id for run in rest] == ["note0"]
    assert end is None
    assert page[0].user_tags == {"mine": "x"}
    assert not page[0].is_job


def test_deleted_runs_and_experiments(database: Database, experiment: str) -> None:
    run = new_run(database, experiment)

    def count(view: experiments.View) -> int:
        found, _ = database.read_now(
            lambda c: run_search.search_in(
                c,
                WS,
                experiment_ids=[experiment],
                filter_text=None,
                order_by=None,
                view=view,
                limit=9,
                offset=0,
            )
        )
        return len(found)

    database.write_now(lambda c: runs.set_lifecycle_in(c, WS, run.id, "deleted"))
    assert (count("ACTIVE_ONLY"), count("DELETED_ONLY"), count("ALL")) == (0, 1, 1)
    with pytest.raises(BadRequest, match="active"):
        database.read_now(lambda c: runs.active_row_in(c, WS, run.id))
    database.write_now(lambda c: runs.set_lifecycle_in(c, WS, run.id, "active"))
    database.write_now(lambda c: experiments.set_lifecycle_in(c, WS, experiment, "deleted", 1))
    assert count("DELETED_ONLY") == 1
    with pytest.raises(NotFound):
        database.write_now(lambda c: experiments.set_lifecycle_in(c, WS, experiment, "deleted", 1))
    with pytest.raises(BadRequest):
        new_run(database, experiment, "other")
    database.write_now(lambda c: experiments.set_lifecycle_in(c, WS, experiment, "active", 1))
    assert count("ACTIVE_ONLY") == 1
    database.write_now(lambda c: store.delete_run_in(c, WS, run.id))
    assert count("ALL") == 0


def test_the_key_of_a_run_that_is_gone_is_not_used_again(database: Database, experiment: str) -> None:
    gone = new_run(database, experiment, "gone")
    log(database, gone, Point("m", 1.0, 1, 1))
    database.write_now(lambda c: store.delete_run_in(c, WS, "gone"))
    assert database.read_now(lambda c: store.run_document(c, WS, "gone")) is None
    again = new_run(database, experiment, "gone")
    assert again.key > gone.key
    assert latest(database, again) == {}


def test_a_renamed_experiment_frees_its_name(database: Database, experiment: str) -> None:
    database.write_now(lambda c: experiments.rename_in(c, WS, experiment, "new", 1))
    again = database.write_now(
        lambda c: experiments.create_in(c, WS, "exp", tags={}, artifact_location=None, now_ms=1)
    )
    assert again != experiment
    with pytest.raises(BadRequest) as error:
        database.write_now(lambda c: experiments.rename_in(c, WS, again, "new", 1))
    assert error.value.code == "RESOURCE_ALREADY_EXISTS"


def test_workspaces_do_not_see_each_other(database: Database, experiment: str) -> None:
    new_run(database, experiment)
    with pytest.raises(NotFound):
        database.read_now(lambda c: experiments.get_in(c, "other", experiment))
    with pytest.raises(NotFound):
        database.read_now(lambda c: runs.get_in(c, "other", "run"))
    found, _ = database.read_now(
        lambda c: run_search.search_in(
            c,
            "other",
            experiment_ids=[experiment],
            filter_text=None,
            order_by=None,
            view="ALL",
            limit=9,
            offset=0,
        )
    )
    assert found == []


def test_order_by_metric_puts_runs_without_it_last(database: Database, experiment: str) -> None:
    for name, value in (("a", 1.0), ("b", math.nan), ("c", 3.0), ("d", None)):
        run = new_run(database, experiment, name)
        if value is not None:
            log(database, run, Point("m", value, 1, 1))

    def order(clause: str) -> list[str]:
        found, _ = database.read_now(
            lambda c: run_search.search_in(
                c,
                WS,
                experiment_ids=[experiment],
                filter_text=None,
                order_by=[clause],
                view="ALL",
                limit=9,
                offset=0,
            )
        )
        return [run.id for run in found]

    assert order("metrics.m DESC") == ["c", "a", "b", "d"]
    assert order("metrics.m ASC") == ["a", "c", "b", "d"]


def test_many_threads_logging_to_one_run_lose_nothing(database: Database, experiment: str) -> None:
    run = new_run(database, experiment)

    def work(worker: int) -> None:
        for index in range(50):
            log(database, run, Point(f"m{worker % 2}", float(index), worker * 1000 + index, index))
            database.write_now(
                lambda c, i=index: runs.add_params_in(c, run.key, run.id, [(f"p{worker}.{i}", "v")])
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    found = database.read_now(lambda c: runs.get_in(c, WS, run.id))
    assert len(found.params) == 400
    for key in ("m0", "m1"):
        history, _ = database.read_now(
            lambda c, k=key: metrics.history_in(c, run.key, k, limit=None, offset=0)
        )
        assert len(history) == 200
    assert {point.step for point in found.metrics} == {49}


async def test_the_cache_of_open_runs_forgets(database: Database, experiment: str) -> None:
    now = 0.0
    tracking = Tracking(database, lambda: now)
    run = new_run(database, experiment)
    assert (await tracking.open_run(WS, run.id)).key == run.key
    database.write_now(lambda c: runs.set_lifecycle_in(c, WS, run.id, "deleted"))
    assert (await tracking.open_run(WS, run.id)).key == run.key
    now = 60.0
    with pytest.raises(BadRequest):
        await tracking.open_run(WS, run.id)
    with pytest.raises(NotFound):
        await tracking.open_run("other", run.id)


def test_logged_models(database: Database, experiment: str) -> None:
    run = new_run(database, experiment)

    def make(model_id: str, name: str, run_id: str = "run") -> logged_models.LoggedModel:
        return database.write_now(
            lambda c: logged_models.create_in(
                c,
                WS,
                model_id=model_id,
                experiment_id=experiment,
                name=name,
                model_type="sk",
                source_run_id=run_id,
                params={"p": "1"},
                tags={"t": name},
                now_ms=int(model_id[1:]),
            )
        )

    assert make("m1", "model").folder == "model"
    assert make("m2", "model").folder == "models/m2", "a second one of that name stands apart"
    assert make("m3", "model", "").folder == "model"
    ready = database.write_now(lambda c: logged_models.finalize_in(c, WS, "m1", "READY", 9))
    assert ready.status == "READY"
    points = (
        Point("acc", 0.9, 1, 1, "m1", "iris", "d"),
        Point("acc", 0.5, 1, 1, "m2", "iris", "e"),
        Point("acc", math.nan, 1, 1, "m3"),
    )
    database.write_now(lambda c: logged_models.add_metrics_in(c, WS, run.id, points))
    with pytest.raises(NotFound):
        database.write_now(
            lambda c: logged_models.add_metrics_in(c, WS, run.id, (Point("a", 1.0, 1, 1, "m-none"),))
        )

    def search(text: str = "", datasets: tuple[DatasetChoice, ...] = (), **order: Any) -> list[str]:
        found, _ = database.read_now(
            lambda c: search_models_in(
                c,
                WS,
                experiment_ids=[experiment],
                filter_text=text,
                datasets=datasets,
                order_by=[ModelOrder(**order)] if order else [],
                limit=10,
                offset=0,
            )
        )
        return [model.id for model in found]

    assert search() == ["m3", "m2", "m1"], "the newest first"
    assert search("metrics.acc > 0.6 AND params.p = '1'") == ["m1"]
    assert search("source_run_id = 'run' AND name = 'model'") == ["m2", "m1"]
    assert search(datasets=(DatasetChoice("iris"),)) == ["m2", "m1"]
    assert search(datasets=(DatasetChoice("iris", "d"),)) == ["m1"]
    assert search(field="metrics.acc", ascending=True) == ["m2", "m1", "m3"]
    database.write_now(lambda c: logged_models.delete_in(c, WS, "m1", 1))
    assert search() == ["m3", "m2"]
    with pytest.raises(NotFound):
        database.read_now(lambda c: logged_models.get_in(c, WS, "m1"))
    assert database.read_now(lambda c: logged_models.get_in(c, WS, "m1", allow_deleted=True)).id == "m1"
