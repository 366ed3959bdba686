"""The command job: what a definition may say (wire.md 4.1). Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from noriba.agent.protocol import TaskDistribution
from noriba.models.errors import BadRequest

INPUT_MODES = {
    "readonlymount": "ro_mount",
    "ro_mount": "ro_mount",
    "readwritemount": "ro_mount",
    "rw_mount": "ro_mount",
    "download": "download",
    "direct": "direct",
    "evalmount": "eval_mount",
    "eval_mount": "eval_mount",
    "evaldownload": "eval_download",
    "eval_download": "eval_download",
}
OUTPUT_MODES = {
    "readwritemount": "rw_mount",
    "rw_mount": "rw_mount",
    "mount": "rw_mount",
    "upload": "upload",
    "direct": "direct",
}
ASSET_TYPES = ("uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model")
PLACEHOLDER = re.compile(r"\$\{\{\s*(inputs|outputs)\.([A-Za-z0-9_.-]+)\s*\}\}")
OPTIONAL_FRAGMENT = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)
DURATION = re.compile(
    r"^P(?:(?P<weeks>\d+(?:\.\d+)?)W)?(?:(?P<days>\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(?P<hours>\d+(?:\.\d+)?)H)?(?:(?P<minutes>\d+(?:\.\d+)?)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?$"
)
TIERS = {
    "standard": "Standard",
    "spot": "Spot",
    "basic": "Standard",
    "premium": "Standard",
    "null": "Standard",
}
"""Job tiers by their lower-case names; Azure's other tiers are dedicated ones."""


class InputDefinition(msgspec.Struct, rename={"type": "jobInputType"}):
    type: str
    value: Any = None
    uri: str | None = None
    mode: str | None = None


class OutputDefinition(
    msgspec.Struct,
    rename={"type": "jobOutputType", "asset_name": "assetName", "asset_version": "assetVersion"},
):
    type: str
    uri: str | None = None
    mode: str | None = None
    asset_name: str | None = None
    asset_version: str | None = None


class Resources(msgspec.Struct, rename="camel"):
    instance_count: int | None = None
    instance_type: str | None = None
    shm_size: str | None = None
    docker_args: str | None = None
    docker_args_list: list[str] | None = None
    locations: list[str] | None = None
    properties: dict[str, Any] | None = None


class Limits(msgspec.Struct, rename="camel"):
    timeout: str | None = None


class QueueSettings(msgspec.Struct, rename="camel"):
    job_tier: str | None = None
    priority: int | None = None


class Identity(msgspec.Struct, rename="camel"):
    identity_type: str
    client_id: str | None = None
    object_id: str | None = None
    resource_id: str | None = None


class CommandDefinition(msgspec.Struct, rename="camel"):
    """A command job as submitted. Fields it does not name are kept in the stored document all the same."""

    command: str
    environment_id: str
    code_id: str | None = None
    compute_id: str | None = None
    environment_variables: dict[str, str | None] | None = None
    inputs: dict[str, InputDefinition | None] | None = None
    outputs: dict[str, OutputDefinition | None] | None = None
    distribution: dict[str, Any] | None = None
    resources: Resources | None = None
    limits: Limits | None = None
    queue_settings: QueueSettings | None = None
    identity: Identity | None = None


def parse_command(properties: dict[str, Any]) -> CommandDefinition:
    """Check a command job's definition. Raises BadRequest that names the field and what to change."""
    if not str(properties.get("command") or "").strip():
        raise BadRequest(
            "A command job needs a command: set 'command'.", target="command", code="ValidationError"
        )
    if not properties.get("environmentId"):
        raise BadRequest(
            "A command job needs an environment: set 'environment', for example "
            "azureml://registries/azureml/environments/sklearn-1.5/labels/latest.",
            target="environmentId",
            code="ValidationError",
        )
    try:
        definition = msgspec.convert(properties, CommandDefinition, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise BadRequest(
            f"The job has a field of the wrong kind: {message}{f' at {path[1:-1]}' if path else ''}.",
            target=path[1:-1] or None,
            code="ValidationError",
        ) from error
    _check_bindings(definition)
    _check_inputs(definition)
    _check_outputs(definition)
    return definition


def _check_bindings(definition: CommandDefinition) -> None:
    """Every ``${{inputs.x}}`` and ``${{outputs.y}}`` must be declared; inside ``$[[ ]]`` an input may be absent."""
    required = OPTIONAL_FRAGMENT.sub("", definition.command)
    for kind, name in PLACEHOLDER.findall(required):
        declared = definition.inputs if kind == "inputs" else definition.outputs
        if name not in (declared or {}) and name.split(".")[0] not in (declared or {}):
            raise BadRequest(
                f"The command uses ${{{{{kind}.{name}}}}}, but the job has no {kind[:-1]} '{name}'. "
                f"Declare it under {kind}, or put the part that uses it in $[[ ]].",
                target=f"{kind}.{name}",
                code="ValidationError",
            )


def _check_inputs(definition: CommandDefinition) -> None:
    for name, item in (definition.inputs or {}).items():
        if item is None or item.type == "literal":
            continue
        target = f"inputs.{name}"
        if item.type not in ASSET_TYPES:
            raise BadRequest(
                f"Input '{name}' has the unknown type '{item.type}'. Use one of: literal, {', '.join(ASSET_TYPES)}.",
                target=target,
                code="ValidationError",
            )
        if not item.uri:
            raise BadRequest(f"Input '{name}' has no path.", target=target, code="ValidationError")
        if item.mode and item.mode.lower() not in INPUT_MODES:
            raise BadRequest(
                f"Input '{name}' has the unknown mode '{item.mode}'. Use ro_mount, download or direct.",
                target=target,
                code="ValidationError",
            )


def _check_outputs(definition: CommandDefinition) -> None:
    for name, item in (definition.outputs or {}).items():
        if item is None:
            continue
        target = f"outputs.{name}"
        if item.type not in ASSET_TYPES:
            raise BadRequest(
                f"Output '{name}' has the unknown type '{item.type}'. Use one of: {', '.join(ASSET_TYPES)}.",
                target=target,
                code="ValidationError",
            )
        if item.mode and item.mode.lower() not in OUTPUT_MODES:
            raise BadRequest(
                f"Output '{name}' has the unknown mode '{item.mode}'. Use rw_mount, upload or direct.",
                target=target,
                code="ValidationError",
            )


def parse_duration_s(text: str) -> float:
    """Seconds of an ISO 8601 duration such as ``PT10M``. Raises BadRequest."""
    match = DURATION.match(text.strip())
    if not match or text.strip() in ("P", "PT"):
        raise BadRequest(
            f"'{text}' is not an ISO 8601 duration. Write for example PT30M for thirty minutes.",
            target="limits.timeout",
            code="ValidationError",
        )
    weeks, days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return (((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60 + seconds


def parse_size_bytes(text: str, *, target: str) -> int:
    """Bytes of a docker-style size such as ``2g``, ``512m`` or ``1048576``. Raises BadRequest."""
    match = re.fullmatch(r"\s*(\d+)\s*([bkmg]?)b?\s*", text, re.IGNORECASE)
    if not match:
        raise BadRequest(
            f"'{text}' is not a size. Write a number with b, k, m or g, for example 2g.",
            target=target,
            code="ValidationError",
        )
    return int(match[1]) * {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}[match[2].lower()]


def parse_tier(text: str | None) -> str:
    """``Standard`` or ``Spot``, given in any letter case. Raises BadRequest."""
    tier = TIERS.get((text or "standard").strip().lower())
    if tier is None:
        raise BadRequest(
            f"'{text}' is not a job tier. Use Standard (dedicated) or Spot (low priority).",
            target="queueSettings.jobTier",
            code="InvalidJobTier",
        )
    return tier


def parse_distribution(value: dict[str, Any] | None, instance_count: int) -> TaskDistribution | None:
    """The distribution of a job. Raises BadRequest for an unknown type or impossible counts."""
    if not value:
        return None
    kind = str(value.get("distributionType", "")).lower()

    def count(name: str, default: int, least: int = 1) -> int:
        number = value.get(name)
        number = default if number is None else number
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= 4096:
            raise BadRequest(
                f"distribution.{name} must be a whole number from {least} to 4096, not {number!r}.",
                target=f"distribution.{name}",
                code="ValidationError",
            )
        return number

    if kind in ("pytorch", "mpi"):
        return TaskDistribution(
            type="pytorch" if kind == "pytorch" else "mpi",
            process_count_per_instance=count("processCountPerInstance", 1),
        )
    if kind == "tensorflow":
        servers = count("parameterServerCount", 0, least=0)
        return TaskDistribution(
            type="tensorflow",
            parameter_server_count=servers,
            worker_count=count("workerCount", max(1, instance_count)),
        )
    if kind == "ray":
        return TaskDistribution(
            type="ray",
            port=value.get("port"),
            include_dashboard=bool(value.get("includeDashboard")),
            dashboard_port=value.get("dashboardPort"),
            head_node_additional_args=value.get("headNodeAdditionalArgs") or "",
            worker_node_additional_args=value.get("workerNodeAdditionalArgs") or "",
        )
    raise BadRequest(
        f"Distribution type '{value.get('distributionType')}' is not known. Use PyTorch, TensorFlow, Mpi or Ray.",
        target="distribution.distributionType",
        code="ValidationError",
    )
