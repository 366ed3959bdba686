"""Jobs as the clients read them: ARM documents and run-history records (wire.md 4, 5)."""

from __future__ import annotations

import datetime as dt
from typing import Any

from noriba.jobs.store import JobRow, computed_properties
from noriba.models.workspace import Workspace
from noriba.services import Services


def iso(at: float | None) -> str | None:
    """A time as clients want it."""
    if at is None:
        return None
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def job_id(workspace: Workspace, name: str) -> str:
    """The ARM id of a job."""
    return f"{workspace.arm_id}/jobs/{name}"


def studio_url(services: Services, workspace: Workspace, name: str) -> str:
    """Where a person looks at the job. It has a query string because the SDK appends ``&tid=``."""
    return f"{services.base_url}/studio/jobs/{name}?wsid={workspace.arm_id}"


def job_document(
    services: Services, workspace: Workspace, row: JobRow, run_tags: dict[str, str]
) -> dict[str, Any]:
    """The ARM document of a job: what was submitted plus what became of it."""
    properties = dict(row.definition)
    properties.update(
        jobType=row.kind,
        status=row.status,
        displayName=row.display_name,
        experimentName=row.experiment,
        description=row.description,
        isArchived=row.is_archived,
        tags={**run_tags, **row.tags},
        properties={**row.properties, **computed_properties(row)},
        parentJobName=row.parent,
        services={
            **_user_services(row.definition),
            "Tracking": {
                "endpoint": f"azureml://{services.host}/mlflow/v1.0{workspace.arm_id}?",
                "jobServiceType": "Tracking",
            },
            "Studio": {"endpoint": studio_url(services, workspace, row.name), "jobServiceType": "Studio"},
        },
    )
    if row.definition.get("outputs"):
        properties["outputs"] = _with_uris(row)
    return {
        "id": job_id(workspace, row.name),
        "name": row.name,
        "type": "Microsoft.MachineLearningServices/workspaces/jobs",
        "systemData": {
            "createdAt": iso(row.created_at),
            "createdBy": row.created_by_name,
            "createdByType": "User",
            "lastModifiedAt": iso(row.modified_at),
        },
        "properties": properties,
    }


def _user_services(definition: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in (definition.get("services") or {}).items() if service}


def _with_uris(row: JobRow) -> dict[str, Any]:
    """Outputs with the place where they are kept."""
    places = (row.resolved or {}).get("outputs") or {}
    outputs: dict[str, Any] = {}
    for name, output in row.definition["outputs"].items():
        place = places.get(name)
        outputs[name] = {**output, "uri": place["uri"]} if output and place else output
    return outputs


def run_record(row: JobRow, run_tags: dict[str, str], experiment_id: str) -> dict[str, Any]:
    """A job as a run-history record."""
    return {
        "runNumber": row.sequence,
        "runId": row.name,
        "rootRunId": row.root,
        "parentRunId": row.parent,
        "rootRunUuid": row.root,
        "runUuid": row.name,
        "experimentId": experiment_id,
        "experimentName": row.experiment,
        "status": row.status,
        "displayName": row.display_name,
        "name": row.display_name,
        "description": row.description,
        "runType": f"azureml.{row.kind.lower()}job",
        "runTypeV2": {
            "orchestrator": "noriba",
            "traits": [row.kind],
            "attribution": None,
            "computeType": "Noriba",
        },
        "createdUtc": iso(row.created_at),
        "startTimeUtc": iso(row.started_at),
        "endTimeUtc": iso(row.ended_at),
        "lastModifiedUtc": iso(row.modified_at),
        "createdBy": {"userObjectId": row.created_by, "userName": row.created_by_name},
        "userId": row.created_by,
        "properties": {**row.properties, **computed_properties(row)},
        "tags": {**run_tags, **row.tags},
        "target": row.compute,
        "hidden": row.is_archived,
        "error": run_error(row),
        "warnings": [{"message": warning["message"]} for warning in row.warnings or []] or None,
        "inputs": None,
        "outputs": None,
    }


def run_error(row: JobRow) -> dict[str, Any] | None:
    """Why a job failed, in run history's shape."""
    if not row.error:
        return None
    return {"error": row.error, "time": iso(row.ended_at), "correlation": None}
