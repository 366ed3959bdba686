"""From the API's documents to what ``az ml`` shows: flat, snake_case, short references. Pure functions.

Names that users choose (inputs, tags, variables …) keep their spelling; fields that are not known here are passed on
in snake_case, so that nothing the server says is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Document = dict[str, Any]

MODES = {
    "ReadOnlyMount": "ro_mount",
    "ReadWriteMount": "rw_mount",
    "Download": "download",
    "Upload": "upload",
    "Direct": "direct",
    "EvalMount": "eval_mount",
    "EvalDownload": "eval_download",
}
JOB_TYPES = {"AutoML": "automl", "FineTuning": "finetuning"}
SERVICE_TYPES = {
    "JupyterLab": "jupyter_lab",
    "SSH": "ssh",
    "TensorBoard": "tensor_board",
    "VSCode": "vs_code",
    "Custom": "custom",
}
IDENTITIES = {"Managed": "managed_identity", "UserIdentity": "user_identity", "AMLToken": "aml_token"}
PRIORITIES = {1: "low", 2: "medium", 3: "high"}

# Maps whose keys are the user's.
_USER_KEYED = frozenset(
    {
        *(
            "tags",
            "properties",
            "environmentVariables",
            "environment_variables",
            "inputs",
            "outputs",
            "services",
        ),
        *(
            "jobs",
            "searchSpace",
            "flavors",
            "componentSpec",
            "conf",
            "args",
            "hyperParameters",
            "customProperties",
        ),
    }
)
_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DURATION = re.compile(
    r"P(?:(?P<days>[\d.]+)D)?(?:T(?:(?P<hours>[\d.]+)H)?(?:(?P<minutes>[\d.]+)M)?(?:(?P<seconds>[\d.]+)S)?)?"
)


def snake(name: str) -> str:
    """``displayName`` -> ``display_name``."""
    return _BOUNDARY.sub("_", name).lower()


def snake_keys(value: Any, *, user_keyed: bool = False) -> Any:
    """A JSON value with its keys in snake_case, but for those the user chose."""
    if isinstance(value, list):
        return [snake_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        (key if user_keyed else snake(key)): snake_keys(
            item, user_keyed=key in _USER_KEYED and not user_keyed
        )
        for key, item in value.items()
    }


def seconds(duration: Any) -> Any:
    """An ISO 8601 duration in whole seconds; anything else as it is."""
    match = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
    if match is None or not any(match.groups()):
        return duration
    factor = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
    return int(sum(float(count) * factor[unit] for unit, count in match.groupdict().items() if count))


def reference(value: Any) -> Any:
    """An ARM id as ``az ml`` writes it (``azureml:/subscriptions/…``); anything else as it is."""
    if isinstance(value, str) and value.lower().startswith("/subscriptions/"):
        return f"azureml:{value}"
    return value


def asset_of(identifier: str) -> tuple[str, str]:
    """Name and version in the id of an asset's version; the version is empty in the id of a container."""
    parts = [part for part in identifier.split("/") if part]
    if len(parts) >= 3 and parts[-2].lower() == "versions":
        return parts[-3], parts[-1]
    return (parts[-1] if parts else ""), ""


def job(document: Mapping[str, Any]) -> Document:
    """A job, of any kind."""
    given = dict(document.get("properties") or {})
    kind = str(given.pop("jobType", ""))
    shown: Document = {
        "name": document.get("name"),
        "display_name": given.pop("displayName", None),
        "status": given.pop("status", None),
        "type": JOB_TYPES.get(kind, kind.lower()),
        "experiment_name": given.pop("experimentName", None),
        "description": given.pop("description", None),
        **_common(document),
    }
    given.pop("isArchived", None)
    compute = reference(given.pop("computeId", None))
    # The SDK shortens this one, for pipelines only.
    shown["compute"] = _short_compute(compute) if kind == "Pipeline" else compute
    if kind == "Command":
        given = {"inputs": {}, "outputs": {}, "environmentVariables": {}, **_without_none(given)}
    shown["code"] = reference(given.pop("codeId", None))
    shown["environment"] = reference(given.pop("environmentId", None))
    for name, convert in _JOB_PARTS.items():
        if name in given:
            shown[snake(name)] = convert(given.pop(name))
    shown.update(
        snake_keys({key: value for key, value in given.items() if key not in ("tags", "properties")})
    )
    shown["tags"] = given.get("tags") or {}
    shown["properties"] = given.get("properties") or {}
    return _without_none(shown)


def job_row(document: Mapping[str, Any]) -> Document:
    """A child run of the run history as a job."""
    return _without_none(
        {
            "name": document.get("runId"),
            "display_name": document.get("displayName"),
            "status": document.get("status"),
            "type": str(document.get("runType") or "").rpartition(".")[2] or None,
            "parent_job_name": document.get("parentRunId"),
            "start_time": document.get("startTimeUtc"),
            "end_time": document.get("endTimeUtc"),
            "creation_context": _without_none({"created_at": document.get("createdUtc")}),
            "tags": document.get("tags") or {},
            "properties": document.get("properties") or {},
        }
    )


def version(document: Mapping[str, Any]) -> Document:
    """A version of an asset: environment, data, model, component or code."""
    identifier = str(document.get("id") or "")
    name, number = asset_of(identifier)
    given = dict(document.get("properties") or {})
    spec = given.pop("componentSpec", None)
    shown: Document = {"name": name, "version": number or document.get("name"), **_common(document)}
    if "/data/" in identifier:
        shown["id"] = identifier
    for wire, own in (("dataType", "type"), ("modelType", "type"), ("dataUri", "path"), ("modelUri", "path")):
        if wire in given:
            shown[own] = given.pop(wire)
    if "codeUri" in given:
        shown["path"] = given.pop("codeUri")
    if isinstance(spec, dict):
        shown.update({key: value for key, value in spec.items() if key not in ("_source", "name", "version")})
    if isinstance(conda := given.get("condaFile"), str):
        given["condaFile"] = _conda(conda)
    if isinstance(build := given.get("build"), dict):
        given["build"] = {"path": build.get("contextUri"), "dockerfile_path": build.get("dockerfilePath")}
    if isinstance(flavors := given.get("flavors"), dict):
        del given["flavors"]
        shown["flavors"] = {key: (value or {}).get("data", value) for key, value in flavors.items()}
    for hidden in ("isAnonymous", "isArchived", "environmentType", "provisioningState"):
        given.pop(hidden, None)
    shown["os_type"] = str(given.pop("osType")).lower() if given.get("osType") else None
    shown.update(snake_keys(given))
    shown["tags"] = given.get("tags") or {}
    return _without_none(shown)


def container(document: Mapping[str, Any]) -> Document:
    """An asset by name, with what is said of its versions."""
    given = dict(document.get("properties") or {})
    kind = given.pop("dataType", None)
    given.pop("isArchived", None)
    shown = {
        "name": document.get("name"),
        "latest_version": given.pop("latestVersion", None),
        "type": kind,
        **_common(document),
        **snake_keys(given),
    }
    return _without_none(shown)


def datastore(document: Mapping[str, Any]) -> Document:
    """A datastore; its secrets are never in the document."""
    given = dict(document.get("properties") or {})
    kinds = {
        "AzureBlob": "azure_blob",
        "AzureFile": "azure_file",
        "AzureDataLakeGen2": "azure_data_lake_gen2",
        "AzureDataLakeGen1": "azure_data_lake_gen1",
        "OneLake": "one_lake",
    }
    kind = str(given.pop("datastoreType", ""))
    credentials = given.pop("credentials", None) or {}
    shown = {
        "name": document.get("name"),
        "type": kinds.get(kind, snake(kind)),
        **_common(document),
        "id": document.get("id"),
        **snake_keys({key: value for key, value in given.items() if key not in ("tags", "properties")}),
        "credentials": {"type": snake(str(credentials.get("credentialsType") or "None"))},
        "tags": given.get("tags") or {},
    }
    return _without_none(shown)


def workspace(document: Mapping[str, Any]) -> Document:
    """A workspace."""
    given = dict(document.get("properties") or {})
    identifier = str(document.get("id") or "")
    shown = {
        "name": document.get("name"),
        "display_name": given.pop("friendlyName", None),
        "description": given.pop("description", None),
        "id": identifier,
        "location": document.get("location"),
        "resource_group": _after(identifier, "resourcegroups"),
        "resourceGroup": _after(identifier, "resourcegroups"),
        "discovery_url": given.pop("discoveryUrl", None),
        "mlflow_tracking_uri": given.pop("mlFlowTrackingUri", None),
        **snake_keys({key: value for key, value in given.items() if key not in ("tags", "properties")}),
        "identity": _workspace_identity(document.get("identity")),
        "tags": document.get("tags") or {},
    }
    return _without_none(shown)


def _workspace_identity(identity: Any) -> Any:
    if not isinstance(identity, dict):
        return None
    return {**snake_keys(identity), "type": snake(str(identity.get("type") or "None"))}


def registry(document: Mapping[str, Any]) -> Document:
    """A registry."""
    given = snake_keys(dict(document.get("properties") or {}))
    shown = {
        "name": document.get("name"),
        "id": document.get("id"),
        "location": document.get("location"),
        **given,
        "tags": document.get("tags") or {},
    }
    return _without_none(shown)


# --- parts


def _common(document: Mapping[str, Any]) -> Document:
    identifier = str(document.get("id") or "")
    return {
        "id": reference(identifier),
        "resourceGroup": _after(identifier, "resourcegroups"),
        "creation_context": _context(document.get("systemData")),
    }


def _context(system_data: Any) -> Document | None:
    """When and by whom; times as Python writes them, which is how ``az ml`` shows them."""
    if not system_data:
        return None
    return {
        key: re.sub(r"Z$", "+00:00", value) if isinstance(value, str) and key.endswith("_at") else value
        for key, value in snake_keys(system_data).items()
    }


def _short_compute(compute: Any) -> Any:
    return f"azureml:{compute.rpartition('/')[2]}" if isinstance(compute, str) and "/" in compute else compute


def _after(identifier: str, word: str) -> str | None:
    parts = identifier.split("/")
    lowered = [part.lower() for part in parts]
    return parts[lowered.index(word) + 1] if word in lowered[:-1] else None


def _inputs(inputs: Any) -> Any:
    return {name: _value(value, "jobInputType") for name, value in (inputs or {}).items()}


def _outputs(outputs: Any) -> Any:
    return {name: _value(value, "jobOutputType") for name, value in (outputs or {}).items()}


def _value(value: Any, kind_field: str) -> Any:
    if not isinstance(value, dict):
        return value
    kind = value.get(kind_field)
    if kind == "literal":
        return value.get("value")
    names = {kind_field: "type", "uri": "path", "assetName": "name", "assetVersion": "version"}
    shown = {names.get(key, snake(key)): snake_keys(item) for key, item in value.items()}
    if "mode" in shown:
        shown["mode"] = MODES.get(str(shown["mode"]), shown["mode"])
    shown["path"] = reference(shown.get("path"))
    return _without_none(shown)


def _typed(field: str, names: Mapping[str, str]) -> Callable[[Any], Any]:
    """Converts a part whose kind is in ``field`` to one with ``type``."""

    def convert(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        kind = str(part.get(field, ""))
        rest = {key: value for key, value in part.items() if key != field}
        return _without_none({"type": names.get(kind, kind.lower()), **snake_keys(rest)})

    return convert


def _limits(limits: Any) -> Any:
    if not isinstance(limits, dict):
        return limits
    return _without_none(
        {snake(key): seconds(value) for key, value in limits.items() if key != "jobLimitsType"}
    )


def _queue(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    shown = snake_keys(settings)
    if isinstance(tier := shown.get("job_tier"), str):
        shown["job_tier"] = tier.lower()
    if "priority" in shown:
        shown["priority"] = PRIORITIES.get(shown["priority"], shown["priority"])
    return _without_none(shown)


def _services(services: Any) -> Any:
    shown = {}
    for name, service in (services or {}).items():
        if not isinstance(service, dict):
            continue
        one = snake_keys({key: value for key, value in service.items() if key != "jobServiceType"})
        kind = service.get("jobServiceType")
        if kind is not None:
            one["type"] = SERVICE_TYPES.get(str(kind), kind)
        if isinstance(nodes := one.get("nodes"), dict):
            one["nodes"] = str(nodes.get("nodes_value_type", "")).lower()
        for key, value in (service.get("properties") or {}).items():
            one[snake(key)] = value
        shown[name] = _without_none(one)
    return shown


def _search_space(space: Any) -> Any:
    names = {
        "choice": ("values",),
        "uniform": ("min_value", "max_value"),
        "loguniform": ("min_value", "max_value"),
        "quniform": ("min_value", "max_value", "q"),
        "qloguniform": ("min_value", "max_value", "q"),
        "normal": ("mu", "sigma"),
        "lognormal": ("mu", "sigma"),
        "qnormal": ("mu", "sigma", "q"),
        "qlognormal": ("mu", "sigma", "q"),
        "randint": ("upper",),
    }
    if not isinstance(space, dict):
        return space
    shown = {}
    for parameter, distribution in space.items():
        match distribution:
            case [str(kind), list(values)] if kind in names:
                shown[parameter] = {"type": kind, **dict(zip(names[kind], values, strict=False))}
            case _:
                shown[parameter] = snake_keys(distribution)
    return shown


def _trial(trial: Any) -> Any:
    if not isinstance(trial, dict):
        return trial
    names = {"codeId": "code", "environmentId": "environment"}
    shown = {names.get(key, snake(key)): value for key, value in trial.items()}
    for name in ("code", "environment"):
        shown[name] = reference(shown.get(name))
    return _without_none(shown)


def _nodes(nodes: Any) -> Any:
    """The nodes of a pipeline, which are in snake_case already."""
    if not isinstance(nodes, dict):
        return nodes
    shown = {}
    for name, node in nodes.items():
        if not isinstance(node, dict):
            shown[name] = node
            continue
        one = {
            key: value
            for key, value in node.items()
            if key not in ("_source", "componentId", "computeId", "name")
        }
        one["component"] = reference(node.get("componentId"))
        one["compute"] = _short_compute(reference(node.get("computeId")))
        for inputs, field in (("inputs", "job_input_type"), ("outputs", "job_output_type")):
            if isinstance(node.get(inputs), dict):
                one[inputs] = {key: _value(value, field) for key, value in node[inputs].items()}
        shown[name] = _without_none(one)
    return shown


def _settings(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {snake(key): reference(value) for key, value in settings.items() if key != "_source"}


def _conda(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _without_none(document: Document) -> Document:
    return {key: value for key, value in document.items() if value is not None}


_JOB_PARTS: dict[str, Callable[[Any], Any]] = {
    "command": lambda value: value,
    "inputs": _inputs,
    "outputs": _outputs,
    "distribution": _typed("distributionType", {}),
    "identity": _typed("identityType", IDENTITIES),
    "limits": _limits,
    "queueSettings": _queue,
    "services": _services,
    "searchSpace": _search_space,
    "samplingAlgorithm": _typed("samplingAlgorithmType", {}),
    "earlyTermination": _typed(
        "policyType", {"MedianStopping": "median_stopping", "TruncationSelection": "truncation_selection"}
    ),
    "trial": _trial,
    "jobs": _nodes,
    "settings": _settings,
}
