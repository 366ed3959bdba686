"""Admission of a command job: what its definition refers to is looked up, its size is chosen.

What comes of it is the job's row. Everything that can be known to be wrong raises here.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

import msgspec

from noriba.agent.protocol import TaskSize
from noriba.assets.environments import resolve_environment
from noriba.assets.resolving import default_output_path, resolve_code, resolve_data
from noriba.catalog import instance_types
from noriba.identity.managed import managed_identity_of
from noriba.jobs.command import (
    INPUT_MODES,
    OUTPUT_MODES,
    CommandDefinition,
    Identity,
    parse_command,
    parse_distribution,
    parse_duration_s,
    parse_size_bytes,
    parse_tier,
)
from noriba.jobs.store import COMPUTED_PROPERTIES, load_in
from noriba.models.errors import BadRequest
from noriba.models.job import JobStatus
from noriba.models.principal import Principal
from noriba.models.workspace import Workspace
from noriba.scheduler.sizing import SizeNeed, rank_sizes
from noriba.services import Services

DEFAULT_EXPERIMENT = "Default"


async def command_values(
    services: Services, workspace: Workspace, principal: Principal, name: str, properties: dict[str, Any]
) -> dict[str, Any]:
    definition = parse_command(properties)
    resources = definition.resources
    tier = parse_tier(definition.queue_settings.job_tier if definition.queue_settings else None)
    count = _instance_count(services, definition)
    size, ranking = _size(services, resources.instance_type if resources else None, tier)
    identity = await _identity(services, workspace, principal, definition.identity)
    compute, warnings = _compute(definition)
    distribution = parse_distribution(definition.distribution, count)
    if definition.environment_variables and any(
        "=" in key or not key for key in definition.environment_variables
    ):
        raise BadRequest(
            "Names of environment variables may not be empty or have '='.",
            target="environmentVariables",
            code="ValidationError",
        )
    resolved: dict[str, Any] = {
        "environment": msgspec.to_builtins(
            await resolve_environment(services, workspace, definition.environment_id, principal=principal)
        ),
        "code": msgspec.to_builtins(
            await resolve_code(services, workspace, definition.code_id, principal=principal)
        )
        if definition.code_id
        else None,
        "inputs": await _inputs(services, workspace, principal, definition),
        "outputs": await _outputs(services, workspace, principal, name, definition),
        "size": msgspec.to_builtins(size),
        "ranking": ranking,
        "distribution": msgspec.to_builtins(distribution),
        "timeout_s": parse_duration_s(definition.limits.timeout)
        if definition.limits and definition.limits.timeout
        else None,
        "shm_size_bytes": parse_size_bytes(resources.shm_size, target="resources.shmSize")
        if resources and resources.shm_size
        else None,
        "container_args": _container_args(definition),
    }
    experiment = text_of(properties, "experimentName") or DEFAULT_EXPERIMENT
    parent = await _parent(services, workspace, text_of(properties, "parentJobName"))
    priority = _priority(definition)
    return {
        "workspace_id": workspace.id,
        "name": name,
        "kind": "Command",
        "status": JobStatus.QUEUED.value,
        "display_name": text_of(properties, "displayName") or name,
        "experiment": experiment,
        "parent": parent,
        "root": parent or name,
        "definition": properties,
        "resolved": resolved,
        "tags": strings_of(properties.get("tags"), "tags"),
        "properties": {
            key: value
            for key, value in strings_of(properties.get("properties"), "properties").items()
            if key not in COMPUTED_PROPERTIES
        },
        "description": text_of(properties, "description"),
        "is_archived": flag_of(properties, "isArchived") or False,
        "priority": priority,
        "tier": tier,
        "size": size.name,
        "instance_count": count,
        "compute": compute,
        "warnings": warnings or None,
        "reason": {
            "code": "Submitted",
            "message": "The job waits for the scheduler.",
            "since": services.clock(),
        },
        "identity": identity,
        "identity_scope": identity["principal_id"],
        "created_by": principal.id,
        "created_by_name": principal.name,
    }


async def _parent(services: Services, workspace: Workspace, name: str | None) -> str | None:
    """The job's parent, which must be there: children are listed below it only."""
    if name is not None:
        await services.database.read(lambda connection: load_in(connection, workspace.id, name))
    return name


def _priority(definition: CommandDefinition) -> int:
    """Low is 1, medium 2 (the default), high 3 (wire.md 4.1)."""
    given = definition.queue_settings.priority if definition.queue_settings else None
    if given is not None and given not in (1, 2, 3):
        raise BadRequest(
            "The priority must be 1 (low), 2 (medium) or 3 (high).",
            target="queueSettings.priority",
            code="ValidationError",
        )
    return given or 2


def _instance_count(services: Services, definition: CommandDefinition) -> int:
    count = definition.resources.instance_count if definition.resources else None
    if count is None:
        return 1
    most = services.control.engine.offer().max_nodes
    if count < 1:
        raise BadRequest(
            f"instance_count must be at least 1, not {count}.",
            target="resources.instanceCount",
            code="InvalidInstanceCount",
        )
    if count > most:
        raise BadRequest(
            f"The job asks for {count} instances; {most} can be had at most. Ask for {most} or fewer.",
            target="resources.instanceCount",
            code="InvalidInstanceCount",
        )
    return count


def _size(services: Services, asked: str | None, tier: str) -> tuple[TaskSize, list[dict[str, Any]]]:
    """The size and, when nobody named one, the ranking it was chosen from."""
    sizes = instance_types()
    ranking: list[dict[str, Any]] = []
    if asked:
        chosen = sizes.get(asked.strip().lower())
        if chosen is None:
            near = difflib.get_close_matches(asked.lower(), sizes, n=3, cutoff=0.5)
            names = ", ".join(sizes[name].name for name in near) or "Standard_DS3_v2"
            raise BadRequest(
                f"There is no size '{asked}' here. Choose one that exists, such as {names}.",
                target="resources.instanceType",
                code="InvalidVmSize",
            )
    else:
        ranked = rank_sizes(sizes.values(), SizeNeed(), spot=tier == "Spot")
        ranking = [msgspec.to_builtins(candidate) for candidate in ranked[:10]]
        chosen = sizes[ranked[0].name.lower()]
    return (
        TaskSize(
            name=chosen.name,
            vcpus=chosen.vcpus,
            memory_gib=chosen.memory_gib,
            gpus=chosen.gpus,
            disk_gib=chosen.disk_gib,
            strict=services.settings.engine.sizing == "strict",
        ),
        ranking,
    )


def _compute(definition: CommandDefinition) -> tuple[str, list[dict[str, str]]]:
    """The compute's name. Named clusters do not exist yet: such a job runs serverless and says so."""
    name = (definition.compute_id or "serverless").rstrip("/").rsplit("/", 1)[-1].removeprefix("azureml:")
    if name.lower() in ("serverless", "local"):
        return "serverless", []
    return "serverless", [
        {
            "code": "ComputeNotFound",
            "message": f"There is no compute '{name}' in this workspace; the job runs on serverless compute.",
        }
    ]


async def _identity(
    services: Services, workspace: Workspace, principal: Principal, asked: Identity | None
) -> dict[str, Any]:
    """Who the job acts as. ``user_id`` is the submitter, ``principal_id`` whom the MSI endpoint gives tokens of."""
    kind = (asked.identity_type if asked else "AMLToken").lower()
    if kind not in ("amltoken", "useridentity", "managed"):
        raise BadRequest(
            f"Identity type '{asked.identity_type if asked else ''}' is not known. "
            "Use user_identity, managed or aml_token.",
            target="identity.identityType",
            code="ValidationError",
        )
    if kind != "managed" or asked is None:
        return {
            "type": "UserIdentity" if kind == "useridentity" else "AMLToken",
            "principal_id": principal.id,
            "user_id": principal.id,
        }
    managed = await managed_identity_of(services, workspace, client_id=asked.client_id)
    return {
        "type": "Managed",
        "principal_id": managed.principal_id,
        "client_id": managed.client_id,
        "user_id": principal.id,
    }


async def _inputs(
    services: Services, workspace: Workspace, principal: Principal, definition: CommandDefinition
) -> dict[str, Any]:
    resolved: dict[str, Any] = {}
    for name, item in (definition.inputs or {}).items():
        if item is None:
            continue
        if item.type == "literal":
            resolved[name] = {"type": "literal", "value": "" if item.value is None else str(item.value)}
            continue
        assert item.uri is not None
        mode = INPUT_MODES[(item.mode or "ro_mount").lower()]
        data = await resolve_data(services, workspace, item.uri, item.type, principal=principal)
        resolved[name] = {
            "type": item.type,
            "mode": mode,
            "uri": item.uri,
            "data": msgspec.to_builtins(data),
        }
    return resolved


async def _outputs(
    services: Services, workspace: Workspace, principal: Principal, job: str, definition: CommandDefinition
) -> dict[str, Any]:
    resolved: dict[str, Any] = {}
    for name, item in (definition.outputs or {}).items():
        if item is None:
            continue
        path = default_output_path(job, name, item.type)
        uri = item.uri or f"azureml://datastores/workspaceblobstore/paths/{path}"
        for placeholder, value in {
            "name": job,
            "output_name": name,
            "default_datastore": "workspaceblobstore",
        }.items():
            uri = re.sub(r"\$\{\{\s*" + placeholder + r"\s*\}\}", value, uri)
        if item.type != "uri_file" and uri.startswith("azureml://") and not uri.endswith("/"):
            uri += "/"
        data = await resolve_data(services, workspace, uri, item.type, principal=principal)
        resolved[name] = {
            "type": item.type,
            "mode": OUTPUT_MODES[(item.mode or "rw_mount").lower()],
            "uri": uri,
            "data": msgspec.to_builtins(data),
            "asset_name": item.asset_name,
            "asset_version": item.asset_version,
        }
    return resolved


def _container_args(definition: CommandDefinition) -> list[str]:
    resources = definition.resources
    if resources is None:
        return []
    if resources.docker_args_list:
        return list(resources.docker_args_list)
    return (resources.docker_args or "").split()


def text_of(properties: dict[str, Any], field: str) -> str | None:
    value = properties.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadRequest(f"'{field}' must be text.", target=field, code="ValidationError")
    return value


def strings_of(value: Any, field: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(
            f"'{field}' must be a mapping of names to texts.", target=field, code="ValidationError"
        )
    return {
        str(key): item if isinstance(item, str) else msgspec.json.encode(item).decode()
        for key, item in value.items()
        if item is not None
    }


def flag_of(properties: dict[str, Any], field: str) -> bool | None:
    """A field that is true, false or absent. Raises BadRequest for anything else."""
    value = properties.get(field)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"'{field}' must be true or false.", target=field, code="ValidationError")
    return value
