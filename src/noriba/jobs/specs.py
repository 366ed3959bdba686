"""From a task in the database to what its agent is told."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from noriba import datastores
from noriba.agent.protocol import (
    Location,
    TaskDistribution,
    TaskInput,
    TaskOutput,
    TaskSize,
    TaskSpec,
)
from noriba.assets.locations import location_of, task_environment
from noriba.assets.resolving import artifacts_path
from noriba.jobs.secrets import MANAGED, ON_BEHALF_OF, job_secret
from noriba.jobs.store import JobRow, load_in
from noriba.models.asset import ResolvedData, ResolvedEnvironment
from noriba.models.workspace import Workspace
from noriba.services import Services
from noriba.storage import sas
from noriba.tracking.store import run_document

LOCATION_LIFETIME_S = 24 * 3600.0
"""How long an agent's addresses are good; it asks again when they have run out."""
TOKEN_LIFETIME_S = 14 * 24 * 3600.0
"""How long a job's token is good at most; it ends with the job anyway (rest/authentication.py)."""


async def make_spec(services: Services, task: sa.Row[Any]) -> TaskSpec:
    """The spec of a task, with fresh addresses and tokens."""

    def load(connection: sa.Connection) -> tuple[JobRow, str]:
        row = load_in(connection, task.workspace_id, task.job)
        document = run_document(connection, task.workspace_id, task.job)
        return row, document.experiment_id if document else ""

    row, experiment_id = await services.database.read(load)
    workspace = await services.workspaces.by_id(task.workspace_id)
    resolved: dict[str, Any] = row.resolved
    definition: dict[str, Any] = row.definition
    principal = await services.principals.by_id(row.identity["user_id"])
    token, expires = services.tokens.issue(
        msgspec.structs.replace(principal, job=(workspace.id, row.name)),
        services.base_url,
        now=services.clock(),
        lifetime_s=TOKEN_LIFETIME_S,
    )
    user_variables = {
        str(name): str(value)
        for name, value in (definition.get("environmentVariables") or {}).items()
        if value is not None
    }
    return TaskSpec(
        id=task.id,
        revision=task.revision,
        desired=task.desired,
        stop_reason=task.stop_reason,
        job=row.name,
        attempt=task.attempt,
        rank=task.rank,
        node_count=row.instance_count,
        command=definition["command"],
        code=await _location(services, workspace, resolved["code"], sas.READ),
        inputs={name: await _input(services, workspace, item) for name, item in resolved["inputs"].items()},
        outputs={
            name: TaskOutput(
                type=item["type"],
                mode=item["mode"],
                target=await _place(services, workspace, item["data"], sas.WRITE),
            )
            for name, item in resolved["outputs"].items()
        },
        environment=await task_environment(
            services,
            workspace,
            msgspec.convert(resolved["environment"], ResolvedEnvironment),
            LOCATION_LIFETIME_S,
        ),
        environment_variables=_variables(services, workspace, row, experiment_id, token, expires),
        user_environment_variables=user_variables,
        distribution=msgspec.convert(resolved["distribution"], TaskDistribution | None),
        leader=task.leader,
        timeout_s=resolved["timeout_s"],
        size=msgspec.convert(resolved["size"], TaskSize),
        shm_size_bytes=resolved["shm_size_bytes"],
        artifacts=await location_of(
            services,
            workspace,
            artifact_folder(workspace, row.name),
            permissions=sas.WRITE,
            lifetime_s=LOCATION_LIFETIME_S,
        ),
        container_args=resolved["container_args"],
    )


def artifact_folder(workspace: Workspace, job: str) -> ResolvedData:
    """Where a job's logs and artifacts are kept (wire.md 5.5)."""
    path = artifacts_path(job)
    return ResolvedData(
        reference=path,
        uri=f"azureml://datastores/{datastores.ARTIFACTS}/paths/{path}",
        type="uri_folder",
        is_folder=True,
        workspace_id=workspace.id,
        datastore=datastores.ARTIFACTS,
        path=path,
    )


async def _location(
    services: Services, workspace: Workspace, data: dict[str, Any] | None, permissions: str
) -> Location | None:
    return None if data is None else await _place(services, workspace, data, permissions)


async def _place(
    services: Services, workspace: Workspace, data: dict[str, Any], permissions: str
) -> Location:
    return await location_of(
        services,
        workspace,
        msgspec.convert(data, ResolvedData),
        permissions=permissions,
        lifetime_s=LOCATION_LIFETIME_S,
    )


async def _input(services: Services, workspace: Workspace, item: dict[str, Any]) -> TaskInput:
    if item["type"] == "literal":
        return TaskInput(type="literal", value=item["value"])
    return TaskInput(
        type=item["type"], mode=item["mode"], source=await _place(services, workspace, item["data"], sas.READ)
    )


def _variables(
    services: Services, workspace: Workspace, row: JobRow, experiment_id: str, token: str, expires: int
) -> dict[str, str]:
    """The variables that Azure ML sets in a job (wire.md 8). Those with paths and ranks are the agent's."""
    base = services.base_url
    scope = workspace.arm_id
    variables = {
        "AZUREML_RUN_ID": row.name,
        "AZUREML_ROOT_RUN_ID": row.root,
        "AZUREML_EXPERIMENT_ID": experiment_id,
        "AZUREML_EXPERIMENT_SCOPE": f"{scope}/experiments/{row.experiment}",
        "AZUREML_WORKSPACE_ID": workspace.id,
        "AZUREML_WORKSPACE_NAME": workspace.name,
        "AZUREML_WORKSPACE_SCOPE": scope,
        "AZUREML_ARM_SUBSCRIPTION": workspace.subscription_id,
        "AZUREML_ARM_RESOURCEGROUP": workspace.resource_group,
        "AZUREML_ARM_WORKSPACE_NAME": workspace.name,
        "AZUREML_ARM_PROJECT_NAME": row.experiment,
        "AZUREML_SERVICE_ENDPOINT": base,
        "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{base}/discovery",
        "AZUREML_RUN_TOKEN": token,
        "AZUREML_RUN_TOKEN_EXPIRY": str(expires),
        "AZUREML_NODE_COUNT": str(row.instance_count),
        "AZUREML_INSTANCE_TYPE": row.size,
        "ARM_CLOUD_METADATA_URL": f"{base}/metadata/endpoints?api-version=2019-05-01",
        # azureml-mlflow would ask Azure itself for its clouds first, and then take Azure's.
        "AZUREML_CURRENT_CLOUD": f"{services.host}/ty/",
        "MLFLOW_TRACKING_URI": base,
        "MLFLOW_REGISTRY_URI": base,
        "MLFLOW_TRACKING_TOKEN": token,
        "MLFLOW_RUN_ID": row.name,
        "MLFLOW_EXPERIMENT_ID": experiment_id,
        "MLFLOW_EXPERIMENT_NAME": row.experiment,
        "MSI_ENDPOINT": f"{base}/msi/token",
        "MSI_SECRET": job_secret(services.keys, MANAGED, workspace.id, row.name),
        "OBO_ENDPOINT": f"{base}/obo/{job_secret(services.keys, ON_BEHALF_OF, workspace.id, row.name)}",
    }
    if row.parent:
        variables["AZUREML_PARENT_RUN_ID"] = row.parent
    if row.identity["type"] == "Managed":
        variables["DEFAULT_IDENTITY_CLIENT_ID"] = row.identity["client_id"]
    return variables
