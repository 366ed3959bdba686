"""What a string that points at data, code, a model or an environment says (wire.md 3, 4.1). Parsing only.

====================================================================  =======================
``azureml:name:version``  ``name:version``  ``azureml:name@label``      AssetReference (no kind)
``[azureml:]/subscriptions/…/workspaces/w/{kind}/n/versions/v``         AssetReference
``azureml://subscriptions/…/workspaces/w/{kind}/n/versions/v``          AssetReference
``azureml://locations/l/workspaces/{guid}/{kind}/n/versions/v``         AssetReference
``azureml://{kind}/n/versions/v``                                       AssetReference
``azureml://registries/r/{kind}/n/{versions|labels}/v``                 AssetReference
``azureml://datastores/d[/paths/p]``                                    DatastoreReference
``azureml://subscriptions/…/workspaces/w/datastores/d[/paths/p]``       DatastoreReference
``azureml://jobs/j/outputs/o[/paths/p]``                                JobOutputReference
``runs:/run[/path]``                                                    RunReference
``https://…`` and the schemes of ``URL_SCHEMES``                        UrlReference
====================================================================  =======================
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from noriba.models.errors import BadRequest

URL_SCHEMES = frozenset({"https", "http", "wasbs", "wasb", "abfss", "abfs", "adl", "s3", "gs", "az", "file"})
"""Schemes of addresses outside the workspace. Which of them can be read is for the look-up to say."""

KINDS = frozenset({"codes", "environments", "data", "models", "components"})


class WorkspaceName(msgspec.Struct, frozen=True):
    """A workspace as resource ids name it."""

    subscription_id: str
    resource_group: str
    name: str


class AssetReference(msgspec.Struct, frozen=True, kw_only=True):
    """A version of an asset: by ``version``, or by ``label`` (``latest``); one of the two is set.

    ``kind`` is empty where the form does not say it. The asset stands in ``registry`` if that is set, else in the
    workspace with GUID ``workspace_id`` or the name ``workspace``, else in the workspace that the reference is
    used in.
    """

    name: str
    version: str = ""
    label: str = ""
    kind: str = ""
    registry: str = ""
    workspace: WorkspaceName | None = None
    workspace_id: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.label}" if self.label else f"{self.name}:{self.version}"


class DatastoreReference(msgspec.Struct, frozen=True, kw_only=True):
    """A path in a datastore; a ``path`` that is empty or ends with ``/`` is a folder."""

    datastore: str
    path: str = ""
    workspace: WorkspaceName | None = None


class JobOutputReference(msgspec.Struct, frozen=True, kw_only=True):
    """An output of a job, or something below it. ``output`` ``artifacts`` stands for all that the job logged."""

    job: str
    output: str
    path: str = ""


class RunReference(msgspec.Struct, frozen=True, kw_only=True):
    """A logged artifact of an MLflow run."""

    run: str
    path: str = ""


class UrlReference(msgspec.Struct, frozen=True, kw_only=True):
    """An address outside of the workspace's datastores. ``scheme`` is in lower case."""

    scheme: str
    url: str


Reference = AssetReference | DatastoreReference | JobOutputReference | RunReference | UrlReference

_WORKSPACE = (
    r"/?subscriptions/(?P<subscription>[^/]+)/resource[gG]roups/(?P<group>[^/]+)"
    r"(?:/providers/[mM]icrosoft\.[mM]achine[lL]earning[sS]ervices)?/workspaces/(?P<workspace>[^/]+)"
)
_ASSET = r"(?P<kind>\w+)/(?P<name>[^/]+)/(?P<by>versions|labels)/(?P<version>[^/]+)"
_DATASTORE = r"datastores/(?P<datastore>[^/]+)(?:/paths(?:/(?P<path>[\s\S]*))?|/(?P<run_path>ExperimentRun/[\s\S]*)|/)?"

_LONG_ASSET = re.compile(f"{_WORKSPACE}/{_ASSET}")
_LONG_DATASTORE = re.compile(f"{_WORKSPACE}/{_DATASTORE}")
_REGISTRY_ASSET = re.compile(f"registries/(?P<registry>[^/]+)/{_ASSET}")
_LOCATION_ASSET = re.compile(f"locations/[^/]+/workspaces/(?P<workspace_id>[^/]+)/{_ASSET}")
_SHORT_ASSET = re.compile(_ASSET)
_SHORT_DATASTORE = re.compile(_DATASTORE)
_JOB_OUTPUT = re.compile(
    rf"(?:{_WORKSPACE}/)?jobs/(?P<job>[^/]+)/outputs/(?P<output>[^/]+)(?:/paths(?:/(?P<path>[\s\S]*))?|/)?"
)
_NAMED = re.compile(r"(?P<name>[\w.-]+)(?::(?P<version>[\w.+-]+)|@(?P<label>[\w.-]+))")
_RUN = re.compile(r"runs:/+(?P<run>[^/?]+)(?:/(?P<path>[\s\S]*))?")
_SCHEME = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://")


def parse_reference(text: str) -> Reference:
    """What ``text`` points at. Raises BadRequest (``InvalidReference``) that names it when it has no known form."""
    stripped = text.strip()
    if run := _RUN.fullmatch(stripped):
        return RunReference(run=run["run"], path=run["path"] or "")
    scheme = _SCHEME.match(stripped)
    if scheme and scheme["scheme"].lower() in URL_SCHEMES:
        return UrlReference(scheme=scheme["scheme"].lower(), url=stripped)
    for prefix in ("file:", "folder:"):  # Azure ML v1 wrote file:azureml://…
        if stripped.startswith(f"{prefix}azureml://"):
            stripped = stripped.removeprefix(prefix)
    # azureml:azureml:… and azureml:/subscriptions/… leak out of the SDK (wire.md, rule 3).
    while stripped.startswith("azureml:") and not stripped.startswith("azureml://"):
        stripped = stripped.removeprefix("azureml:")
    is_uri = stripped.startswith("azureml://")
    body = stripped.removeprefix("azureml://")
    found = _parse_path(body) if is_uri or body.startswith("/") else _parse_name(body)
    if found is None:
        raise BadRequest(
            f"'{text}' is not a reference that is understood here. Use azureml:<name>:<version>, "
            "azureml://datastores/<datastore>/paths/<path>, azureml://jobs/<job>/outputs/<output>, an https:// "
            "address or the id of an asset; local files have to be uploaded first.",
            code="InvalidReference",
            target=text,
        )
    return found


def _parse_path(body: str) -> Reference | None:
    if match := _LONG_DATASTORE.fullmatch(body):
        return _datastore(match, _workspace(match))
    if match := _LONG_ASSET.fullmatch(body):
        return _asset(match, workspace=_workspace(match))
    if match := _REGISTRY_ASSET.fullmatch(body):
        return _asset(match, registry=match["registry"])
    if match := _LOCATION_ASSET.fullmatch(body):
        return _asset(match, workspace_id=match["workspace_id"])
    if match := _JOB_OUTPUT.fullmatch(body):
        return JobOutputReference(job=match["job"], output=match["output"], path=match["path"] or "")
    if match := _SHORT_DATASTORE.fullmatch(body):
        return _datastore(match, None)
    if match := _SHORT_ASSET.fullmatch(body):
        return _asset(match)
    return None


def _parse_name(body: str) -> Reference | None:
    match = _NAMED.fullmatch(body)
    if match is None:
        return None
    return AssetReference(name=match["name"], version=match["version"] or "", label=match["label"] or "")


def _workspace(match: re.Match[str]) -> WorkspaceName:
    return WorkspaceName(match["subscription"], match["group"], match["workspace"])


def _datastore(match: re.Match[str], workspace: WorkspaceName | None) -> DatastoreReference:
    return DatastoreReference(
        datastore=match["datastore"],
        path=(match["path"] or match["run_path"] or "").lstrip("/"),
        workspace=workspace,
    )


def _asset(match: re.Match[str], **place: Any) -> AssetReference | None:
    kind = match["kind"].lower()
    if kind not in KINDS:
        return None
    # `azureml:name@latest` in Python code leaks its prefix into ids (wire.md, rule 3).
    name, value = match["name"].removeprefix("azureml:"), match["version"]
    if match["by"] == "labels":
        return AssetReference(kind=kind, name=name, label=value, **place)
    return AssetReference(kind=kind, name=name, version=value, **place)


def short_datastore_uri(datastore: str, path: str) -> str:
    """``azureml://datastores/<datastore>/paths/<path>``."""
    return f"azureml://datastores/{datastore}/paths/{path}"


def long_datastore_uri(workspace: WorkspaceName, datastore: str, path: str) -> str:
    """The form that names the workspace too, which the SDK wants of models (wire.md 3.5)."""
    return (
        f"azureml://subscriptions/{workspace.subscription_id}/resourcegroups/{workspace.resource_group}"
        f"/workspaces/{workspace.name}/datastores/{datastore}/paths/{path}"
    )
