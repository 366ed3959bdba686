"""Named, versioned assets, and what references to them come to."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

AssetKind = Literal["codes", "environments", "data", "models", "components"]

KINDS: tuple[AssetKind, ...] = ("codes", "environments", "data", "models", "components")


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version of an asset. ``properties`` are as on the wire; ``scope`` is a workspace's id or
    ``registry:<name>``; ``sequence`` orders versions by creation."""

    sequence: int
    scope: str
    kind: AssetKind
    name: str
    version: str
    properties: dict[str, Any]
    hash: str | None = None
    stage: str | None = None
    is_archived: bool = False
    is_anonymous: bool = False
    created_at: float
    created_by: str
    modified_at: float


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """All versions of a name. ``latest_version`` is the one created last (archived ones only if there is no
    other), ``next_version`` the number that the next automatic one gets."""

    scope: str
    kind: AssetKind
    name: str
    properties: dict[str, Any]
    is_archived: bool
    latest_version: str | None
    next_version: str
    created_at: float
    created_by: str
    modified_at: float


DataType = Literal["uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model"]


class ResolvedData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where data is. Exactly one of these is set: ``datastore`` (of workspace ``workspace_id``), ``account`` with
    ``container`` (Noriba's own storage), or ``url`` (anywhere else); ``path`` is below the first two.

    ``uri`` is the data's own address (the long ``azureml://…`` form for datastores), ``reference`` what the user
    wrote, ``asset_id`` the version it came from (for lineage).
    """

    reference: str
    uri: str
    type: DataType
    is_folder: bool
    workspace_id: str = ""
    datastore: str = ""
    account: str = ""
    container: str = ""
    path: str = ""
    url: str = ""
    asset_id: str = ""


class ResolvedEnvironment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an environment is made of. ``curated`` names one of the built-in catalogue and excludes the others."""

    name: str
    version: str
    image: str | None = None
    conda_file: str | None = None
    curated: str | None = None
    build_context: ResolvedData | None = None
    dockerfile_path: str = "Dockerfile"
    asset_id: str = ""
