"""Where artifacts stand, and the paths that name them (pure).

All are blobs of the workspace's storage account. A run's are in the container ``azureml`` under
``ExperimentRun/dcid.<run>/``, the same place as the files of a job, since a job is a run.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

import msgspec

from noriba.tracking.errors import invalid

CONTAINER = "azureml"
MAX_PATH = 1000


class Folder(msgspec.Struct, frozen=True):
    """A place in the workspace's storage account. ``prefix`` ends with ``/`` or is empty."""

    container: str
    prefix: str

    def blob(self, path: str) -> str:
        """The blob's name for a checked path."""
        return self.prefix + path


def run_folder(run_id: str) -> Folder:
    """Where the artifacts of a run stand."""
    return Folder(CONTAINER, f"ExperimentRun/dcid.{run_id}/")


def model_folder(model_id: str, source_run_id: str, folder: str) -> Folder:
    """Where the files of a logged model stand: among its run's artifacts, or in its own place without a run."""
    if source_run_id:
        return Folder(CONTAINER, f"ExperimentRun/dcid.{source_run_id}/{folder}/")
    return Folder(CONTAINER, f"LoggedModel/{model_id}/{folder}/")


def check_path(path: str, *, empty: bool = False) -> str:
    """A path below a folder of artifacts, without slashes at its ends. Raises BadRequest for one that leads
    elsewhere (``..``, absolute, encoded or with backslashes) or that no file system can hold."""
    trimmed = path.rstrip("/")
    if not trimmed:
        if empty and path in ("", "/", "."):
            return ""
        if not path:
            raise invalid("Invalid path: the artifact's path is missing.")
    seen = trimmed
    while (decoded := unquote(seen)) != seen:
        seen = decoded
    bad = (
        len(trimmed) > MAX_PATH
        or "\0" in seen
        or any(ord(character) < 32 for character in seen)
        or any(part in ("", ".", "..") for part in seen.replace("\\", "/").split("/"))
        or (len(seen) > 1 and seen[1] == ":" and seen[0].isalpha())
        or "://" in seen
    )
    if bad:
        raise invalid(
            f"Invalid path: {path[:200]!r}. Use a relative path with '/' between its parts and no '.' or '..' parts."
        )
    return trimmed


class RunPlace(msgspec.Struct, frozen=True):
    """``path`` below the artifacts of a run."""

    run_id: str
    path: str


class ModelPlace(msgspec.Struct, frozen=True):
    """``path`` below the files of a logged model."""

    model_id: str
    path: str


class DatastorePlace(msgspec.Struct, frozen=True):
    """``path`` in one of the workspace's datastores."""

    datastore: str
    path: str


class BlobPlace(msgspec.Struct, frozen=True):
    """``path`` in the artifact container, as Azure's artifact service names it: ``<origin>/<container>/…``."""

    origin: str
    container: str
    path: str


Place = RunPlace | ModelPlace | DatastorePlace | BlobPlace


def parse_proxied(path: str) -> Place:
    """What a path of ``mlflow-artifacts:`` (``/api/2.0/mlflow-artifacts/artifacts/<path>``) names. Raises BadRequest.

    ``<experiment>/<run>/artifacts/<path>``, ``<experiment>/models/<model>/artifacts/<path>`` and
    ``datastores/<datastore>/<path>``.
    """
    parts = check_path(path.lstrip("/")).split("/")
    if parts[0] == "datastores" and len(parts) >= 2:
        return DatastorePlace(parts[1], "/".join(parts[2:]))
    if parts[0] == "blobs" and len(parts) >= 3:
        return BlobPlace(parts[1], parts[2], "/".join(parts[3:]))
    if len(parts) >= 4 and parts[1] == "models" and parts[3] == "artifacts":
        return ModelPlace(parts[2], "/".join(parts[4:]))
    if len(parts) >= 3 and parts[2] == "artifacts":
        return RunPlace(parts[1], "/".join(parts[3:]))
    raise invalid(
        f"Invalid path: {path[:200]!r} is not below a run's or model's artifacts. Use the artifact URI that the run has."
    )


def proxied_path(place: Place, experiment_id: str = "0") -> str:
    """The inverse of ``parse_proxied``."""
    match place:
        case RunPlace(run_id, path):
            parts = [experiment_id, run_id, "artifacts", path]
        case ModelPlace(model_id, path):
            parts = [experiment_id, "models", model_id, "artifacts", path]
        case DatastorePlace(datastore, path):
            parts = ["datastores", datastore, path]
        case BlobPlace(origin, container, path):
            parts = ["blobs", origin, container, path]
    return "/".join(part for part in parts if part)


def parse_origin(origin: str, container: str, path: str) -> Place:
    """What Azure's artifact service means by an origin, a container and a path. Raises BadRequest."""
    if not origin or not container or "/" in origin or "/" in container:
        raise invalid("An artifact has an origin, a container and a path.")
    check_path(f"{origin}/{container}")
    path = check_path(path, empty=True)
    if origin == "ExperimentRun" and container.startswith("dcid."):
        return RunPlace(container.removeprefix("dcid."), path)
    if origin == "LoggedModel":
        return ModelPlace(container, path.removeprefix("artifacts").lstrip("/"))
    if origin == "datastores":
        return DatastorePlace(container, path)
    return BlobPlace(origin, container, path)


def quoted(path: str) -> str:
    """A path as part of a URI."""
    return quote(path, safe="/:@!$&'()*+,;=-._~")
