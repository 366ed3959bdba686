"""The environment variables of a job's processes. Pure.

Order, later wins: the node's own (an allow-list), the environment's, the platform's (from the task), those with
paths, those of the distribution, the user's. A few belong to the platform alone: without them the job could not
report any more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase

from noriba.agent.folder import TaskFolder
from noriba.agent.processes import TASK_VARIABLE

INHERITED = (
    "LANG", "LANGUAGE", "LC_*", "TZ",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "NVIDIA_*", "NCCL_*", "UCX_*", "OPENBLAS_*", "NVPL_*", "MKL_*",
    "PIP_*", "UV_INDEX*", "UV_FIND_LINKS", "NORIBA_TEST_*",
)  # fmt: skip
"""What a job takes over from the agent's own environment: patterns of names."""

_PLATFORM_ONLY = ("AZUREML_RUN_ID", "AZUREML_RUN_TOKEN", TASK_VARIABLE, "NORIBA_NODE")

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def inherited(environment: Mapping[str, str], extra: tuple[str, ...] = ()) -> dict[str, str]:
    """The part of the agent's environment that jobs see. Names in ``extra`` (patterns) are added."""
    patterns = (*INHERITED, *extra)
    return {
        name: value
        for name, value in environment.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def data_variables(
    inputs: Mapping[str, str | None], literals: set[str], outputs: Mapping[str, str]
) -> dict[str, str]:
    """Where each input and output is, under the names that scripts use."""
    found: dict[str, str] = {}
    for name, value in inputs.items():
        if value is None:
            continue
        found[f"AZURE_ML_INPUT_{name}"] = value
        found[f"AZUREML_{'PARAMETER' if name in literals else 'DATAREFERENCE'}_{name}"] = value
    for name, value in outputs.items():
        found[f"AZURE_ML_OUTPUT_{name}"] = value
        found[f"AZUREML_DATAREFERENCE_{name}"] = value
    return found


def path_variables(folder: TaskFolder) -> dict[str, str]:
    """Variables that hold folders of the task."""
    code, logs = str(folder.code), str(folder.logs)
    return {
        "HOME": str(folder.home),
        "TMPDIR": str(folder.tmp),
        "TEMP": str(folder.tmp),
        "TMP": str(folder.tmp),
        "PWD": code,
        "AZUREML_CR_EXECUTION_WORKING_DIR_PATH": code,
        "AZUREML_SCRIPT_DIRECTORY_NAME": code,
        "AZUREML_LOGDIRECTORY_PATH": logs,
        "AZUREML_CR_AZUREML_CONTEXT": str(folder.root),
        "AZ_BATCHAI_JOB_TEMP": str(folder.tmp),
        "AZ_BATCHAI_JOB_WORK_DIR": code,
        "AZ_BATCHAI_OUTPUT_LOGS": logs,
        "AZ_BATCHAI_STDOUTERR_DIR": f"{logs}/user_logs",
        "NORIBA_LOGS": logs,
    }


def certificate_variables(bundle: str) -> dict[str, str]:
    """Every common HTTP library finds the server's certificate authority, besides the public ones."""
    names = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "MLFLOW_TRACKING_SERVER_CERT_PATH")
    return dict.fromkeys(names, bundle) if bundle else {}


def job_environment(
    *,
    node: Mapping[str, str],
    environment: Mapping[str, str],
    programs: str,
    platform: Mapping[str, str],
    paths: Mapping[str, str],
    data: Mapping[str, str],
    distribution: Mapping[str, str],
    user: Mapping[str, str],
    vcpus: int | None,
    visible_gpus: str | None,
) -> dict[str, str]:
    """All variables of one process.

    ``programs``: the environment's part of ``PATH``, which comes first. ``vcpus``: the number of threads numeric libraries start, None to leave it to them. ``visible_gpus``: value of
    ``CUDA_VISIBLE_DEVICES``, None where the machine has no GPU to hide.
    """
    result: dict[str, str] = {"PYTHONUNBUFFERED": "1", "PATH": _SYSTEM_PATH, "SHELL": "/bin/bash"}
    result["USER"] = result["LOGNAME"] = os.environ.get("USER", "noriba")
    if vcpus is not None:
        result["OMP_NUM_THREADS"] = str(vcpus)
    result.update(node)
    result.update(environment)
    result.update(platform)
    result.update(paths)
    result.update(data)
    result.update(distribution)
    held = {name: result[name] for name in _PLATFORM_ONLY if name in result}
    result.update(user)
    result.update(held)
    if programs:
        result["PATH"] = programs + ":" + result["PATH"]
    if visible_gpus is not None and "CUDA_VISIBLE_DEVICES" not in user:
        result["CUDA_VISIBLE_DEVICES"] = visible_gpus
    return {
        name: value for name, value in result.items() if name and "=" not in name and "\0" not in name + value
    }
