"""MLflow's routes for runs: their life, search, metric histories. Logging is in mlflow_logging.py."""

from __future__ import annotations

import random
import uuid
from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.rest import mlflow_wire as wire
from noriba.rest.mlflow import Api, MlflowCall, done, rendered
from noriba.rest.mlflow_experiments import Tag, view_of
from noriba.tracking import metrics, run_search, runs
from noriba.tracking.errors import invalid, invalid_value, missing
from noriba.tracking.experiments import View
from noriba.tracking.names import random_name
from noriba.tracking.paging import offset_of, token_of
from noriba.tracking.statuses import RunStatus
from noriba.tracking.store import DEFAULT_EXPERIMENT_ID, RUN_NAME_TAG, USER_TAG
from noriba.tracking.validation import (
    MAX_TAG_VALUE,
    check_experiment_id,
    check_length,
    check_max_results,
    check_run_id,
    check_tag,
    check_timestamp,
)

api = Api()
_random = random.SystemRandom()
_STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


class ById(msgspec.Struct):
    run_id: str = ""
    run_uuid: str = ""

    @property
    def checked(self) -> str:
        return check_run_id(self.run_id or self.run_uuid)


class Create(msgspec.Struct):
    experiment_id: str = ""
    user_id: str = ""
    run_name: str = ""
    start_time: int | None = None
    tags: list[Tag] = []


class Update(ById):
    status: str | int | None = None
    end_time: int | None = None
    run_name: str | None = None


class Search(msgspec.Struct):
    experiment_ids: list[str] = []
    filter: str | None = None
    run_view_type: View | int = "ACTIVE_ONLY"
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str | None = None


class History(ById):
    metric_key: str = ""
    page_token: str | None = None
    max_results: int | None = None


class BulkHistory(msgspec.Struct):
    run_id: list[str] = []
    metric_key: str = ""
    max_results: int | None = None


class IntervalHistory(msgspec.Struct):
    run_ids: list[str] = []
    metric_key: str = ""
    start_step: int | None = None
    end_step: int | None = None
    max_results: int | None = None


@api.post("/runs/create")
async def create(request: MlflowCall) -> Any:
    """Start a run that is no job."""
    wanted = await request.read(Create)
    experiment_id = check_experiment_id(wanted.experiment_id or DEFAULT_EXPERIMENT_ID)
    tags = dict(check_tag(tag.key, tag.value) for tag in wanted.tags)
    named = tags.get(RUN_NAME_TAG, "")
    if wanted.run_name and named and wanted.run_name != named:
        raise invalid(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
            f"(run_name='{wanted.run_name}', mlflow.runName='{named}')."
        )
    name = check_length("run_name", wanted.run_name or named or random_name(_random), MAX_TAG_VALUE)
    start_ms = check_timestamp(wanted.start_time or request.now_ms, "start_time")
    run_id = uuid.uuid4().hex
    user = wanted.user_id or tags.get(USER_TAG) or request.principal.name
    await request.services.tracking.ensure_default(request.workspace.id, request.services.clock())
    made = await request.services.database.write(
        lambda connection: runs.create_in(
            connection,
            request.workspace.id,
            run_id=run_id,
            experiment_id=experiment_id,
            name=name,
            user_id=user,
            start_ms=start_ms,
            tags=tags,
        )
    )
    return {"run": wire.run(made, request.places)}


@api.get("/runs/get")
async def get(request: MlflowCall) -> Any:
    """A run with all that was logged to it."""
    run_id = (await request.read(ById)).checked
    found = await request.services.database.read(
        lambda connection: runs.get_in(connection, request.workspace.id, run_id)
    )
    return {"run": wire.run(found, request.places)}


@api.post("/runs/update")
async def update(request: MlflowCall) -> Any:
    """Change a run's status, end and name. A job's own status is not changed by this."""
    wanted = await request.read(Update)
    run_id = wanted.checked
    status = _status_of(wanted.status)
    end_ms = None if wanted.end_time is None else check_timestamp(wanted.end_time, "end_time")
    name = wanted.run_name and check_length("run_name", wanted.run_name, MAX_TAG_VALUE)
    changed = await request.services.database.write(
        lambda connection: runs.update_in(
            connection, request.workspace.id, run_id, status=status, end_ms=end_ms, name=name
        )
    )
    return {"run_info": wire.run_info(changed, request.places)}


def _status_of(status: str | int | None) -> RunStatus | None:
    if status is None:
        return None
    try:
        return RunStatus(_STATUSES.get(status, "") if isinstance(status, int) else status)
    except ValueError as error:
        raise invalid_value("status", status, f"Use one of {', '.join(RunStatus)}.") from error


@api.post("/runs/delete")
async def delete(request: MlflowCall) -> Any:
    """Mark a run deleted."""
    return await _set_lifecycle(request, "deleted")


@api.post("/runs/restore")
async def restore(request: MlflowCall) -> Any:
    """Bring a deleted run back."""
    return await _set_lifecycle(request, "active")


async def _set_lifecycle(request: MlflowCall, stage: str) -> Any:
    run_id = (await request.read(ById)).checked
    await request.services.database.write(
        lambda connection: runs.set_lifecycle_in(connection, request.workspace.id, run_id, stage)
    )
    request.services.tracking.forget_runs()
    return done()


@api.query("/runs/search")
async def search(request: MlflowCall) -> Any:
    """Find runs."""
    wanted = await request.read(Search)
    limit = check_max_results(wanted.max_results, default=1000, limit=50_000)
    offset = offset_of(wanted.page_token)
    view = view_of(wanted.run_view_type)

    def read(connection: sa.Connection) -> bytes:
        found, more = run_search.search_in(
            connection,
            request.workspace.id,
            experiment_ids=wanted.experiment_ids,
            filter_text=wanted.filter,
            order_by=wanted.order_by,
            view=view,
            limit=limit,
            offset=offset,
        )
        answer: dict[str, Any] = {"runs": [wire.run(run, request.places) for run in found]}
        if more:
            answer["next_page_token"] = token_of(offset + limit)
        return msgspec.json.encode(answer)

    return rendered(await request.services.database.read(read, heavy=True))


@api.get("/metrics/get-history")
async def get_history(request: MlflowCall) -> Any:
    """All points of a metric of a run."""
    wanted = await request.read(History)
    run_id = wanted.checked
    if not wanted.metric_key:
        raise missing("metric_key")
    if wanted.max_results is not None and wanted.max_results <= 0:
        raise invalid_value("max_results", wanted.max_results, "It must be a positive integer.")
    limit = None if wanted.max_results is None else min(wanted.max_results, metrics.MAX_BULK_POINTS)
    offset = offset_of(wanted.page_token)

    def read(connection: sa.Connection) -> bytes:
        row = runs.row_in(connection, request.workspace.id, run_id)
        points, more = metrics.history_in(connection, row.key, wanted.metric_key, limit=limit, offset=offset)
        answer: dict[str, Any] = {"metrics": [wire.metric(point) for point in points]}
        if more and limit is not None:
            answer["next_page_token"] = token_of(offset + limit)
        return msgspec.json.encode(answer)

    return rendered(await request.services.database.read(read, heavy=True))


@api.get("/metrics/get-history-bulk")
async def get_history_bulk(request: MlflowCall) -> Any:
    """A metric's points in several runs (MLflow's web pages ask for this)."""
    wanted = await request.read(BulkHistory)
    _check_runs(wanted.run_id, wanted.metric_key, "run_id")
    limit = min(wanted.max_results or metrics.MAX_BULK_POINTS, metrics.MAX_BULK_POINTS)

    def read(connection: sa.Connection) -> bytes:
        found = metrics.histories_in(
            connection, request.workspace.id, wanted.run_id, wanted.metric_key, max(1, limit)
        )
        return msgspec.json.encode(
            {"metrics": [{**wire.metric(point), "run_id": run_id} for run_id, point in found]}
        )

    return rendered(await request.services.database.read(read, heavy=True))


@api.get("/metrics/get-history-bulk-interval")
async def get_history_bulk_interval(request: MlflowCall) -> Any:
    """Points of a metric in several runs, thinned out evenly."""
    wanted = await request.read(IntervalHistory)
    _check_runs(wanted.run_ids, wanted.metric_key, "run_ids")
    limit = check_max_results(
        wanted.max_results, default=metrics.MAX_INTERVAL_POINTS, limit=metrics.MAX_INTERVAL_POINTS
    )
    steps = None
    if wanted.start_step is not None and wanted.end_step is not None:
        if wanted.start_step > wanted.end_step:
            raise invalid(
                "end_step must be greater than start_step. "
                f"Found start_step={wanted.start_step} and end_step={wanted.end_step}."
            )
        steps = (wanted.start_step, wanted.end_step)
    elif wanted.start_step is not None or wanted.end_step is not None:
        raise invalid("If either start step or end step are specified, both must be specified.")

    def read(connection: sa.Connection) -> bytes:
        found: list[dict[str, Any]] = []
        for run_id in wanted.run_ids:
            row = runs.row_in(connection, request.workspace.id, run_id)
            points = metrics.sampled_history_in(
                connection, row.key, wanted.metric_key, steps=steps, limit=limit
            )
            found += [{**wire.metric(point), "run_id": run_id} for point in points]
        return msgspec.json.encode({"metrics": found})

    return rendered(await request.services.database.read(read, heavy=True))


def _check_runs(run_ids: list[str], metric_key: str, name: str) -> None:
    if not run_ids:
        raise missing(name)
    if len(run_ids) > metrics.MAX_BULK_RUNS:
        raise invalid(
            f"The request cannot specify more than {metrics.MAX_BULK_RUNS} runs. Received {len(run_ids)}."
        )
    if not metric_key:
        raise missing("metric_key")
