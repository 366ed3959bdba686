"""A job is a run."""

from __future__ import annotations

import pytest

from noriba.database import Database
from noriba.models.errors import Conflict
from noriba.models.job import JobStatus
from noriba.tracking import store

WS = "11111111-0000-4000-8000-000000000001"


def make(database: Database, run_id: str, *, experiment: str = "credit", parent: str | None = None) -> str:
    return database.write_now(
        lambda connection: store.create_run_in(
            connection,
            workspace_id=WS,
            run_id=run_id,
            experiment_name=experiment,
            run_name=f"display {run_id}",
            user_id="user",
            start_time=100.5,
            tags={"team": "risk"},
            parent_run_id=parent,
        )
    )


def read(database: Database, run_id: str) -> store.RunDocument:
    found = database.read_now(lambda connection: store.run_document(connection, WS, run_id))
    assert found is not None
    return found


def test_submission_makes_run_and_experiment(database: Database) -> None:
    first = make(database, "job1")
    assert make(database, "job2") == first, "one experiment per name"
    assert make(database, "job3", experiment="other") != first
    run = read(database, "job1")
    assert (run.id, run.name, run.experiment_name, run.status) == (
        "job1",
        "display job1",
        "credit",
        "SCHEDULED",
    )
    assert run.job_status is JobStatus.NOT_STARTED
    assert run.start_time == 100.5
    assert run.user_tags == {"team": "risk"}
    assert run.tags["mlflow.runName"] == "display job1"


def test_the_same_run_twice_is_refused(database: Database) -> None:
    make(database, "job1")
    with pytest.raises(Conflict):
        make(database, "job1")


def test_the_default_experiment_has_mlflows_id(database: Database) -> None:
    assert make(database, "job1", experiment="Default") == "0"


@pytest.mark.parametrize(
    ("job", "run"),
    [("Preparing", "SCHEDULED"), ("Running", "RUNNING"), ("Finalizing", "RUNNING"), ("Canceled", "KILLED")],
)
def test_status_follows_the_job(database: Database, job: str, run: str) -> None:
    make(database, "job1")
    database.write_now(lambda connection: store.set_run_status_in(connection, WS, "job1", job, 200.25))
    document = read(database, "job1")
    assert document.status == run
    assert document.end_time == (200.25 if run == "KILLED" else None)


def test_job_tags_and_run_tags_are_the_same(database: Database) -> None:
    make(database, "job1")
    database.write_now(
        lambda connection: store.set_run_tags_in(connection, WS, "job1", {"team": None, "stage": "dev"})
    )
    assert database.read_now(lambda connection: store.read_run_tags(connection, WS, "job1")) == {
        "stage": "dev"
    }
    assert database.read_now(lambda connection: store.read_run_tags(connection, WS, "nobody")) == {}


def test_jobs_are_not_listed_as_runs_without_job(database: Database) -> None:
    make(database, "job1")
    documents, following = database.read_now(lambda connection: store.runs_without_job(connection, WS))
    assert documents == []
    assert following is None


def test_children_know_their_parent(database: Database) -> None:
    make(database, "parent")
    make(database, "child", parent="parent")
    child = read(database, "child")
    assert child.parent_run_id == "parent"
    assert child.tags["mlflow.parentRunId"] == "parent"
    assert database.read_now(
        lambda connection: set(store.run_documents(connection, WS, ["parent", "child", "x"]))
    ) == {"parent", "child"}
