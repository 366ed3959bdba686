"""Where a model version's files are: from what a client names as its source to the address of a model asset."""

from __future__ import annotations

from urllib.parse import urlsplit

import sqlalchemy as sa

from noriba.rest.mlflow_places import is_local, parse_address
from noriba.tracking import logged_models, registry, runs
from noriba.tracking.artifacts import (
    DatastorePlace,
    ModelPlace,
    Place,
    RunPlace,
    model_folder,
    run_folder,
)
from noriba.tracking.errors import invalid


def place_of(source: str) -> Place | None:
    """Where a source is in this server's storage; None elsewhere. Raises BadRequest for what nobody else can reach."""
    if is_local(source):
        raise invalid(
            f"Invalid model version source: '{source[:200]}'. It is a path of your machine; log the model to a run "
            "first and register that."
        )
    if ".." in urlsplit(source).path.split("/"):
        raise invalid(f"Invalid model version source: '{source[:200]}' must not have '..' in its path.")
    return parse_address(source)


def of_models_uri(
    connection: sa.Connection, workspace_id: str, source: str, run_id: str, model_id: str
) -> tuple[str, str, str]:
    """``models:/<model id>`` and ``models:/<name>/<version>`` as (address, run, model id). Raises NotFound."""
    parts = urlsplit(source).path.strip("/").split("/")
    if len(parts) == 1 and "@" not in parts[0]:
        model = logged_models.get_in(connection, workspace_id, parts[0])
        return f"mlflow-artifacts:/0/models/{model.id}/artifacts", run_id or model.source_run_id, model.id
    if len(parts) == 1:
        name, _, alias = parts[0].rpartition("@")
        found = registry.get_by_alias_in(connection, workspace_id, name, alias)
    elif parts[1].lower() == "latest":
        found = registry.get_by_alias_in(connection, workspace_id, parts[0], "latest")
    else:
        found = registry.get_version_in(connection, workspace_id, parts[0], parts[1])
    return found.uri, run_id or found.run_id, model_id or found.model_id


def asset_uri(connection: sa.Connection, workspace_id: str, arm_id: str, place: Place) -> tuple[str, str]:
    """The address of a place as a model asset has it, and the run it comes from. Raises NotFound."""
    run_id = ""
    datastore = "workspaceartifactstore"
    match place:
        case RunPlace(run_id, path):
            runs.row_in(connection, workspace_id, run_id)
            blob = run_folder(run_id).blob(path)
        case ModelPlace(model_id, path):
            model = logged_models.get_in(connection, workspace_id, model_id, allow_deleted=True)
            run_id = model.source_run_id
            blob = model_folder(model.id, model.source_run_id, model.folder).blob(path)
        case DatastorePlace(datastore, path):
            blob = path
        case _:
            blob = f"{place.origin}/{place.container}/{place.path}"
    scope = arm_id.replace("/providers/Microsoft.MachineLearningServices", "").replace(
        "/resourceGroups/", "/resourcegroups/"
    )
    return f"azureml:/{scope}/datastores/{datastore}/paths/{blob.rstrip('/')}", run_id
