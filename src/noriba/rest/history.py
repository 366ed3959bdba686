"""Run history: what the SDK reads and edits jobs through besides ARM (wire.md 5)."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.assets.references import parse_reference
from noriba.assets.resolving import artifacts_path, resolve_data
from noriba.jobs import store
from noriba.jobs.admission import flag_of, text_of
from noriba.jobs.reports import ARTIFACT_CONTAINER
from noriba.models.errors import BadRequest, NoribaError
from noriba.models.workspace import Workspace
from noriba.rest.call import Call
from noriba.rest.job_documents import run_error, run_record
from noriba.rest.router import WORKSPACE, Routes
from noriba.services import Services
from noriba.storage import sas
from noriba.tracking.store import RunDocument, run_document

routes = Routes()
HISTORY = "/history/v1.0" + WORKSPACE
LOG_FOLDERS = ("user_logs/", "system_logs/", "azureml-logs/", "logs/")
LOG_ADDRESS_LIFETIME_S = 3600.0


@routes.get(HISTORY + "/runs/{run}")
async def get_run(call: Call) -> Any:
    """A run's record."""
    row, document = await _load(call, call.params["run"])
    return _record(row, document)


@routes.get(HISTORY + "/experiments/{experiment}/runs/{run}")
async def get_run_of_experiment(call: Call) -> Any:
    """A run's record, by experiment."""
    return await get_run(call)


@routes.get(HISTORY + "/runs/{run}/details")
async def get_run_details(call: Call) -> Any:
    """Status, error, warnings and the addresses of the logs; ``stream`` polls this (wire.md 5.4)."""
    # The log list is read after the status: lines of a job that is over are all in the files by then.
    row, document = await _load(call, call.params["run"])
    return {
        "runId": row.name,
        "target": row.compute,
        "status": row.status,
        "startTimeUtc": _record(row, document)["startTimeUtc"],
        "endTimeUtc": _record(row, document)["endTimeUtc"],
        "services": {},
        "error": run_error(row),
        "warnings": [{"source": w["code"], "message": w["message"]} for w in row.warnings or []],
        "tags": _record(row, document)["tags"],
        "properties": _record(row, document)["properties"],
        "logFiles": await log_files(call.services, call.workspace, row.name),
        "submittedBy": row.created_by_name,
    }


async def log_files(services: Services, workspace: Workspace, job: str) -> dict[str, str]:
    """Signed, short-lived addresses of a job's log files by their names."""
    prefix = artifacts_path(job)
    account = workspace.storage_account
    key = services.keys.account_key(account)
    now = services.clock()
    found: dict[str, str] = {}
    for folder in LOG_FOLDERS:
        listing = await services.blobs.list(account, ARTIFACT_CONTAINER, prefix + folder)
        for blob in listing.blobs:
            query = sas.blob_sas(
                key,
                account,
                ARTIFACT_CONTAINER,
                blob.name,
                "r",
                now + LOG_ADDRESS_LIFETIME_S,
            )
            found[blob.name.removeprefix(prefix)] = services.blob_url(
                account, ARTIFACT_CONTAINER, blob.name, query
            )
    return found


@routes.get(HISTORY + "/runs/{run}/children")
async def get_children(call: Call) -> Any:
    """Records of a job's children, oldest first."""
    workspace_id, parent = call.workspace.id, call.params["run"]
    top = call.query.get("$top", "")
    limit = int(top) if top.isdigit() and int(top) > 0 else 1000

    def load(connection: sa.Connection) -> list[tuple[store.JobRow, RunDocument | None]]:
        store.load_in(connection, workspace_id, parent)
        rows = store.list_in(connection, workspace_id, view="All", parent=parent, limit=limit)
        return [(row, run_document(connection, workspace_id, row.name)) for row in reversed(rows)]

    children = await call.services.database.read(load, heavy=True)
    return {"value": [_record(row, document) for row, document in children]}


@routes.patch(HISTORY + "/runs/{run}")
@routes.patch(HISTORY + "/experiments/{experiment}/runs/{run}")
async def patch_run(call: Call) -> Any:
    """Change a job's name, description, tags, properties, or archive it. Tags and properties merge."""
    body = await call.json()
    changes: dict[str, Any] = {
        "display_name": text_of(body, "displayName"),
        "description": text_of(body, "description"),
        "is_archived": flag_of(body, "hidden"),
    }
    for field in ("tags", "properties"):
        value = body.get(field)
        if value is not None and not isinstance(value, dict):
            raise BadRequest(f"'{field}' must be a mapping.", target=field, code="ValidationError")
        if value:
            changes[field] = {
                key: item if item is None or isinstance(item, str) else msgspec.json.encode(item).decode()
                for key, item in value.items()
                if key not in store.COMPUTED_PROPERTIES
            }
    workspace_id, name, now, who = (
        call.workspace.id,
        call.params["run"],
        call.services.clock(),
        call.principal.name,
    )
    await call.services.database.write(
        lambda connection: store.update_metadata_in(
            connection, store.load_in(connection, workspace_id, name), changes, now=now, who=who
        )
    )
    return await get_run(call)


@routes.post(HISTORY + "/rundata", action="read")
async def run_data(call: Call) -> Any:
    """A run's record with its outputs as data assets; ``download`` asks for this (wire.md 5.5)."""
    body = await call.json()
    run = body.get("runId")
    if not isinstance(run, str):
        raise BadRequest("'runId' must be given.", target="runId", code="ValidationError")
    row, document = await _load(call, run)
    return {"runMetadata": {**_record(row, document), "outputs": _output_assets(call.workspace, row)}}


def _output_assets(workspace: Workspace, row: store.JobRow) -> dict[str, Any] | None:
    """Named outputs, as assets whose ids ``resolve_uris`` can resolve."""
    if not row.resolved or not row.resolved.get("outputs"):
        return None
    kinds = {"mlflow_model": "MLFlowModel", "custom_model": "CustomModel", "triton_model": "TritonModel"}
    return {
        name: {
            # ``azureml://jobs/…`` says the same thing whether or not the output was registered.
            "assetId": f"azureml://locations/{workspace.location}/workspaces/{workspace.id}/data/"
            f"azureml_{row.name}_output_data_{name}/versions/1",
            "type": kinds.get(output["type"], output["type"]),
        }
        for name, output in row.resolved["outputs"].items()
    }


@routes.get(HISTORY + "/runs/{run}/serviceinstances/{node}")
async def service_instances(call: Call) -> Any:
    """Interactive services of a job's node; none run in this version."""
    await _load(call, call.params["run"])
    return {"instances": {}}


@routes.post("/data/v1.0" + WORKSPACE + "/dataversion/batchGetResolvedUris", action="read")
async def resolve_uris(call: Call) -> Any:
    """Where data assets are kept."""
    return {"values": {asset: {"uri": uri, "type": kind} for asset, uri, kind in await _resolved(call)}}


@routes.post("/modelregistry/v1.0" + WORKSPACE + "/models/batchGetResolvedUris", action="read")
async def resolve_model_uris(call: Call) -> Any:
    """Where models are kept."""
    return {"values": {asset: {"path": uri} for asset, uri, _ in await _resolved(call)}}


async def _resolved(call: Call) -> list[tuple[str, str, str]]:
    values = (await call.json()).get("values")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadRequest("'values' must be a list of asset ids.", target="values", code="ValidationError")
    found = []
    for asset in values:
        try:
            data = await _resolve_output(call, asset) or await resolve_data(
                call.services, call.workspace, asset, "custom_model", principal=call.principal
            )
        except NoribaError as error:
            if error.status != 404:
                raise
            continue
        found.append((asset, data.uri, "uri_folder" if data.is_folder else "uri_file"))
    return found


async def _resolve_output(call: Call, asset: str) -> Any:
    """The place of a job's output that ``_output_assets`` named, which exists before it is registered."""
    reference = parse_reference(asset)
    name = getattr(reference, "name", "")
    job, found, output = name.removeprefix("azureml_").partition("_output_data_")
    if not name.startswith("azureml_") or not found:
        return None
    return await resolve_data(
        call.services,
        call.workspace,
        f"azureml://jobs/{job}/outputs/{output}",
        "custom_model",
        principal=call.principal,
    )


async def _load(call: Call, name: str) -> tuple[store.JobRow, RunDocument | None]:
    workspace_id = call.workspace.id

    def load(connection: sa.Connection) -> tuple[store.JobRow, RunDocument | None]:
        row = store.load_in(connection, workspace_id, name)
        return row, run_document(connection, workspace_id, name)

    return await call.services.database.read(load)


def _record(row: store.JobRow, document: RunDocument | None) -> dict[str, Any]:
    return run_record(row, document.user_tags if document else {}, document.experiment_id if document else "")
