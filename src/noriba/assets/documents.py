"""What asset documents may say, what of them never changes, and how updates are merged. Pure (wire.md 3)."""

from __future__ import annotations

import re
from typing import Any

from noriba.assets.urls import own_blob
from noriba.models.asset import AssetKind
from noriba.models.errors import BadRequest, Conflict

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")

DATA_TYPES = ("uri_file", "uri_folder", "mltable")
MODEL_TYPES = ("custom_model", "mlflow_model", "triton_model", "mlflow_model_v2")

_CONTENT: dict[AssetKind, tuple[str, ...]] = {
    "codes": ("codeUri",),
    "data": ("dataType", "dataUri"),
    "models": ("modelType", "modelUri"),
    "environments": ("image", "condaFile", "build", "inferenceConfig", "osType"),
    "components": ("componentSpec",),
}
"""The fields of a version that can not change."""

_CONTENT_DEFAULTS = {"osType": "Linux"}
_SPEC_METADATA = frozenset({"name", "version", "display_name", "description", "tags", "_source", "$schema"})
"""Parts of a component's specification that are not what it does."""


def check_name(name: str, *, what: str = "name") -> None:
    """Raise BadRequest unless an asset can have this name, or a version this ``what``."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"'{name[:300]}' can not be the {what} of an asset. Use 1 to 255 letters, digits, '-', '_' and '.', "
            "the first of them a letter or digit.",
            code="InvalidAssetName" if what == "name" else "InvalidAssetVersion",
            target=what,
        )


def check_properties(kind: AssetKind, name: str, version: str, body: dict[str, Any]) -> dict[str, Any]:
    """The ``properties`` of a version as they are to be stored. Raises BadRequest that names the field."""
    properties = _object(body.get("properties"), "properties")
    check_name(name)
    check_name(version, what="version")
    for field in ("tags", "properties"):
        if properties.get(field) is not None:
            _object(properties[field], f"properties.{field}")
    match kind:
        case "codes":
            _text(properties, "codeUri", "the address of the uploaded folder")
        case "data":
            _choice(properties, "dataType", DATA_TYPES)
            _text(properties, "dataUri", "the path or address of the data")
        case "models":
            properties = {"modelType": "custom_model", **properties}
            _text(properties, "modelUri", "the path or address of the model")
        case "environments":
            build = properties.get("build")
            if build is not None:
                _text(_object(build, "properties.build"), "contextUri", "the folder with the Dockerfile")
            elif not properties.get("image"):
                raise BadRequest(
                    "An environment needs an image (with or without a conda file) or a build context.",
                    code="ValidationError",
                    target="properties.image",
                )
        case "components":
            spec = _object(properties.get("componentSpec"), "properties.componentSpec")
            if not spec.get("type"):
                raise BadRequest(
                    "A component needs a type, such as command.",
                    code="ValidationError",
                    target="properties.componentSpec.type",
                )
    return {field: value for field, value in properties.items() if value is not None}


def content_of(kind: AssetKind, properties: dict[str, Any]) -> dict[str, Any]:
    """The part of ``properties`` that makes the version what it is and can not change."""
    content: dict[str, Any] = {
        field: properties.get(field, _CONTENT_DEFAULTS.get(field))
        for field in _CONTENT[kind]
        if properties.get(field, _CONTENT_DEFAULTS.get(field)) is not None
    }
    if kind == "components":
        spec = content["componentSpec"]
        content["componentSpec"] = {field: spec[field] for field in spec if field not in _SPEC_METADATA}
    if kind == "environments" and "build" in content:
        build = {"dockerfilePath": "Dockerfile", **content["build"]}
        # The same folder under another name or port of this server is the same.
        own = own_blob(str(build.get("contextUri")))
        content["build"] = {**build, "contextUri": (own.account, own.container, own.path)} if own else build
    return content


def merge_properties(
    kind: AssetKind, name: str, version: str, existing: dict[str, Any], new: dict[str, Any]
) -> dict[str, Any]:
    """An existing version's ``properties`` after a PUT of ``new``.

    Content must be the same; tags are replaced, custom properties added to, other fields replaced where given.
    Raises Conflict (409) when content differs.
    """
    old_content, new_content = content_of(kind, existing), content_of(kind, new)
    if old_content != new_content:
        changed = sorted(
            field
            for field in old_content.keys() | new_content.keys()
            if old_content.get(field) != new_content.get(field)
        )
        raise Conflict(
            f"Version '{version}' of '{name}' exists and can not be changed ({', '.join(changed)} would differ). "
            "Create a new version.",
            code="AssetVersionImmutable",
            target=changed[0],
        )
    merged = {**existing, **new}
    for field in _CONTENT[kind]:
        if field in existing and kind != "components":
            merged[field] = existing[field]
    if custom := {**(existing.get("properties") or {}), **(new.get("properties") or {})}:
        merged["properties"] = custom
    return merged


def code_hash(properties: dict[str, Any]) -> str | None:
    """The content hash that the client computed of a code (wire.md 3.2)."""
    found = (properties.get("properties") or {}).get("hash_sha256")
    return str(found) if found else None


def is_anonymous(properties: dict[str, Any]) -> bool:
    """Whether nobody named this: it was made along with a job and is left out of lists."""
    return bool(properties.get("isAnonymous"))


def number_of(version: str) -> int:
    """The number that automatic versions count from; 0 for versions that are no number."""
    return int(version) if version.isdecimal() and version.isascii() and len(version) <= 18 else 0


def _object(value: Any, target: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"'{target}' must be a JSON object.", code="ValidationError", target=target)
    return value


def _text(properties: dict[str, Any], field: str, meaning: str) -> None:
    if not isinstance(properties.get(field), str) or not properties[field].strip():
        raise BadRequest(
            f"'{field}' is missing: set it to {meaning}.",
            code="ValidationError",
            target=f"properties.{field}",
        )


def _choice(properties: dict[str, Any], field: str, choices: tuple[str, ...]) -> None:
    if properties.get(field) not in choices:
        raise BadRequest(
            f"'{field}' must be one of {', '.join(choices)}, not {properties.get(field)!r}.",
            code="ValidationError",
            target=f"properties.{field}",
        )
