"""Jobs: submit, read, list, cancel, delete (wire.md 4, 5.1, 5.3)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa
from starlette.responses import Response

from noriba.jobs import store
from noriba.jobs.submit import submit_job
from noriba.models.errors import BadRequest
from noriba.models.job import TERMINAL, JobStatus
from noriba.rest.call import Call
from noriba.rest.job_documents import iso, job_document
from noriba.rest.router import WORKSPACE, Routes
from noriba.tracking.store import read_run_tags, without_system_tags

routes = Routes()
PAGE = 100
JOB = WORKSPACE + "/jobs/{name}"


@routes.put(JOB)
async def put_job(call: Call) -> Any:
    """Submit a job, or update the metadata of one that exists."""
    body = await call.json()
    properties = body.get("properties")
    if not isinstance(properties, dict):
        raise BadRequest(
            "The body must have the job under 'properties'.", target="properties", code="ValidationError"
        )
    created = await submit_job(call.services, call.workspace, call.principal, call.params["name"], properties)
    return (201 if created else 200), await _document(call, call.params["name"])


@routes.get(JOB)
async def get_job(call: Call) -> Any:
    """A job's document."""
    return await _document(call, call.params["name"])


@routes.get(WORKSPACE + "/jobs")
async def list_jobs(call: Call) -> Any:
    """Jobs of the workspace, newest first, in pages."""
    query = call.query
    before = query.get("$skiptoken") or query.get("$skip")
    if before is not None and not before.isdigit():
        raise BadRequest("$skipToken must be one from a nextLink.", target="$skipToken")
    top = query.get("$top") or query.get("maxresults") or str(PAGE)
    if not top.isdigit() or int(top) < 1:
        raise BadRequest("$top must be a positive whole number.", target="$top")
    limit = min(int(top), 1000)
    if query.get("scheduled") == "true" or query.get("scheduleid"):
        return {"value": []}
    workspace = call.workspace

    def load(connection: sa.Connection) -> list[tuple[store.JobRow, dict[str, str]]]:
        rows = store.list_in(
            connection,
            workspace.id,
            view=query.get("listviewtype", "ActiveOnly"),
            kind=query.get("jobtype"),
            tag=query.get("tag"),
            experiment=query.get("experimentname"),
            parent=query.get("parentjobname"),
            before=int(before) if before else None,
            limit=limit + 1,
        )
        return [(row, without_system_tags(read_run_tags(connection, workspace.id, row.name))) for row in rows]

    rows = await call.services.database.read(load, heavy=True)
    answer: dict[str, Any] = {
        "value": [job_document(call.services, workspace, row, tags) for row, tags in rows[:limit]]
    }
    if len(rows) > limit:
        parameters = {
            key: value for key, value in call.request.query_params.items() if key.lower() != "$skiptoken"
        }
        parameters["$skipToken"] = str(rows[limit - 1][0].sequence)
        answer["nextLink"] = f"{call.services.base_url}{workspace.arm_id}/jobs?{urlencode(parameters)}"
    return answer


@routes.post(JOB + "/cancel")
async def cancel_job(call: Call) -> Any:
    """Ask for a job to be canceled. The operation is done when the job is over."""
    name = call.params["name"]
    status = await call.services.control.cancel_job(call.workspace.id, name, call.principal.name)
    return _cancel_answer(call, name, status)


@routes.get(JOB + "/cancelOperation")
async def cancel_operation(call: Call) -> Any:
    """Whether a cancel is done."""
    row = await _row(call, call.params["name"])
    return _cancel_answer(call, call.params["name"], JobStatus(row.status))


def _cancel_answer(call: Call, name: str, status: JobStatus) -> Response:
    if status in TERMINAL:
        return Response(status_code=200)
    location = (
        f"{call.services.base_url}{call.workspace.arm_id}/jobs/{name}/cancelOperation?api-version=2023-04-01"
    )
    return Response(status_code=202, headers={"Location": location, "Retry-After": "1"})


@routes.delete(JOB)
async def delete_job(call: Call) -> Any:
    """Delete a job that is over, with its history. What it stored stays."""
    await call.services.control.delete_job(call.workspace.id, call.params["name"])
    return Response(status_code=200)


@routes.get(JOB + "/timeline")
async def job_timeline(call: Call) -> Any:
    """Everything that happened to the job, in order: statuses, phases, warnings (Noriba's own route)."""
    workspace_id, name = call.workspace.id, call.params["name"]

    def load(connection: sa.Connection) -> list[sa.Row[Any]]:
        store.load_in(connection, workspace_id, name)
        return store.events_in(connection, workspace_id, name)

    events = await call.services.database.read(load, heavy=True)
    return {
        "value": [
            {
                "at": iso(event.at),
                "kind": event.kind,
                "status": event.status,
                "attempt": event.attempt,
                "code": event.code,
                "message": event.message,
                "who": event.who,
            }
            for event in events
        ]
    }


@routes.get(JOB + "/utilization")
async def job_utilization(call: Call) -> Any:
    """Utilisation samples of the job's nodes (product.md R5; Noriba's own route)."""
    workspace_id, name = call.workspace.id, call.params["name"]

    def load(connection: sa.Connection) -> list[sa.Row[Any]]:
        store.load_in(connection, workspace_id, name)
        return store.samples_in(connection, workspace_id, name)

    samples = await call.services.database.read(load, heavy=True)
    return {"value": [{"rank": row.rank, **row.sample, "at": iso(row.at)} for row in samples]}


async def _row(call: Call, name: str) -> store.JobRow:
    workspace_id = call.workspace.id
    return await call.services.database.read(lambda connection: store.load_in(connection, workspace_id, name))


async def _document(call: Call, name: str) -> dict[str, Any]:
    workspace_id = call.workspace.id

    def load(connection: sa.Connection) -> tuple[store.JobRow, dict[str, str]]:
        row = store.load_in(connection, workspace_id, name)
        return row, without_system_tags(read_run_tags(connection, workspace_id, name))

    row, tags = await call.services.database.read(load)
    return job_document(call.services, call.workspace, row, tags)
