"""Registering what jobs made."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from noriba.assets import documents, store, versions
from noriba.models.asset import AssetKind, Version


def register_output_in(
    connection: sa.Connection,
    *,
    scope: str,
    name: str,
    version: str | None,
    type: str,
    uri: str,
    job: str,
    output: str,
    created_by: str,
    now: float,
) -> Version:
    """Register the output of a job as a data asset, or as a model where ``type`` is one.

    ``uri`` is the long form of its path. Without a version it gets the next number. Registering the same again
    changes nothing. Raises BadRequest (name) and Conflict (the version exists with other content).
    """
    is_model = type.endswith("_model")
    kind: AssetKind = "models" if is_model else "data"
    properties: dict[str, Any] = {
        "isAnonymous": False,
        "isArchived": False,
        "tags": {},
        "properties": {"azureml.sourceOutput": output},
    }
    if is_model:
        properties |= {"modelType": type, "modelUri": uri.rstrip("/"), "jobName": job}
    else:
        properties |= {"dataType": type, "dataUri": uri}
        properties["properties"]["azureml.sourceJob"] = job
    if not version:
        latest = _same(connection, scope, kind, name, properties)
        if latest is not None:
            return latest
        version = versions.next_version(connection, scope, kind, name)
    checked = documents.check_properties(kind, name, version, {"properties": properties})
    found, _ = versions.put_version(
        connection, scope, kind, name, version, checked, created_by=created_by, now=now
    )
    return found


def _same(
    connection: sa.Connection, scope: str, kind: AssetKind, name: str, properties: dict[str, Any]
) -> Version | None:
    """The latest version if it is this very output already (a job that is finished twice registers once)."""
    latest = store.find_latest(connection, scope, kind, name, archived=True)
    if latest is not None and documents.content_of(kind, latest.properties) == documents.content_of(
        kind, properties
    ):
        return latest
    return None
