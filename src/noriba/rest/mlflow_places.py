"""Addresses of artifacts, as the client at hand understands them (wire.md 8.2).

Plain MLflow gets ``mlflow-artifacts:/…`` and sends the bytes through the server; azureml-mlflow gets ``azureml://…``
and is told signed addresses of the blobs.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import unquote, urlsplit

from noriba.models.errors import BadRequest
from noriba.models.workspace import Workspace
from noriba.tracking.artifacts import (
    BlobPlace,
    DatastorePlace,
    ModelPlace,
    Place,
    RunPlace,
    check_path,
    parse_origin,
    parse_proxied,
    proxied_path,
    quoted,
)

_AZURE_RUN = re.compile(
    r".*/experiments/(?P<experiment>[^/]+)/runs/(?P<run>[^/]+)/artifacts(?:/(?P<path>.*))?"
)
_DATASTORE = re.compile(
    r"(?:subscriptions/.+?/workspaces/[^/]+/)?datastores/(?P<datastore>[^/]+)/paths/(?P<path>.*)", re.DOTALL
)
_JOB = re.compile(
    r"(?:subscriptions/.+?/workspaces/[^/]+/)?jobs/(?P<job>[^/]+)/outputs/artifacts(?:/paths)?/?(?P<path>.*)"
)
_PROXIED = re.compile(r".*/api/2\.0/mlflow-artifacts/artifacts/(?P<path>.+)")


class Places(ABC):
    """How a client names places of artifacts."""

    @abstractmethod
    def run(self, experiment_id: str, run_id: str) -> str:
        """The address of a run's artifacts."""

    @abstractmethod
    def model(self, experiment_id: str, model: Any) -> str:
        """The address of a logged model's files."""

    @abstractmethod
    def experiment(self, experiment_id: str) -> str:
        """The address under which the runs of an experiment have theirs."""

    @abstractmethod
    def place(self, place: Place) -> str:
        """The address of any place."""


class PlainPlaces(Places):
    """For MLflow's own clients."""

    def run(self, experiment_id: str, run_id: str) -> str:
        return f"mlflow-artifacts:/{experiment_id}/{run_id}/artifacts"

    def model(self, experiment_id: str, model: Any) -> str:
        return f"mlflow-artifacts:/{experiment_id}/models/{model.id}/artifacts"

    def experiment(self, experiment_id: str) -> str:
        return f"mlflow-artifacts:/{experiment_id}"

    def place(self, place: Place) -> str:
        return f"mlflow-artifacts:/{quoted(proxied_path(place))}"


class AzurePlaces(Places):
    """For azureml-mlflow, whose addresses name host and workspace."""

    def __init__(self, host: str, workspace: Workspace) -> None:
        self._root = f"azureml://{host}/mlflow/v2.0{workspace.arm_id}"

    def run(self, experiment_id: str, run_id: str) -> str:
        return f"{self._root}/experiments/{experiment_id}/runs/{run_id}/artifacts"

    def model(self, experiment_id: str, model: Any) -> str:
        if model.source_run_id:
            return f"{self.run(experiment_id, model.source_run_id)}/{quoted(model.folder)}"
        return f"azureml://artifacts/LoggedModel/{model.id}/artifacts"

    def experiment(self, experiment_id: str) -> str:
        return f"{self._root}/experiments/{experiment_id}"

    def place(self, place: Place) -> str:
        match place:
            case RunPlace(run_id, path):
                address = self.run("0", run_id)
            case ModelPlace(model_id, path):
                address = f"azureml://artifacts/LoggedModel/{model_id}/artifacts"
            case DatastorePlace(datastore, path):
                address = f"azureml://artifacts/datastores/{datastore}"
            case BlobPlace(origin, container, path):
                address = f"azureml://artifacts/{origin}/{container}"
        return f"{address}/{quoted(path)}" if path else address


def parse_address(address: str) -> Place | None:
    """The place in this server's storage that an address of any client names; None for one elsewhere.

    Raises BadRequest for one that tries to leave its place.
    """
    parts = urlsplit(address)
    path = unquote(parts.path)
    if parts.scheme == "mlflow-artifacts":
        return parse_proxied(path)
    if parts.scheme in ("http", "https"):
        proxied = _PROXIED.fullmatch(path)
        return parse_proxied(proxied["path"]) if proxied else None
    if parts.scheme == "runs":
        run_id, _, rest = path.strip("/").partition("/")
        return RunPlace(run_id, check_path(rest, empty=True))
    if parts.scheme != "azureml":
        return None
    whole = f"{parts.netloc}{path}"
    if found := _AZURE_RUN.fullmatch(path):
        return RunPlace(found["run"], check_path(found["path"] or "", empty=True))
    if found := _DATASTORE.fullmatch(whole):
        return DatastorePlace(found["datastore"], check_path(found["path"], empty=True))
    if found := _JOB.fullmatch(whole):
        return RunPlace(found["job"], check_path(found["path"], empty=True))
    if parts.netloc == "artifacts":
        origin, _, rest = path.strip("/").partition("/")
        container, _, below = rest.partition("/")
        return parse_origin(origin, container, below)
    return None


def is_local(address: str) -> bool:
    """Whether an address is a path of the client's own machine, which the server can not reach."""
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise BadRequest(f"'{address[:200]}' is not an address.") from error
    return parts.scheme in ("", "file") or len(parts.scheme) == 1
