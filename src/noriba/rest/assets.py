"""Codes, environments, data, models and components: of workspaces and of registries (wire.md 3, 7.2).

All kinds share these handlers; what differs by kind is in noriba/assets. A *place* is where assets stand: one
workspace, or one registry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa

from noriba.assets import curated, documents, listing, store, uploads, versions
from noriba.assets.environments import CURATED_PREFIX
from noriba.assets.ids import COMMANDS
from noriba.assets.listing import VersionFilter
from noriba.assets.preparing import prepare
from noriba.assets.urls import REGISTRY_ACCOUNT
from noriba.models.asset import KINDS, AssetKind, Version
from noriba.models.errors import BadRequest, Forbidden, NotFound
from noriba.rest.asset_documents import Place, container_document, version_document
from noriba.rest.call import Call
from noriba.rest.documents import (
    LARGEST_PAGE,
    PAGE_SIZE,
    bad_skip,
    number_in_query,
    page_answer,
    skip_of,
)
from noriba.rest.router import WORKSPACE, Routes

T = TypeVar("T")


PlaceOf = Callable[[Call], Awaitable[Place]]


async def workspace_place(call: Call) -> Place:
    """The place of a request to a workspace."""
    return Place(scope=call.workspace.id, workspace=call.workspace)


def _name(call: Call) -> str:
    # `azureml:name@latest` in Python code leaks its prefix into paths (wire.md, rule 3).
    return call.params["name"].removeprefix("azureml:")


def _is_curated(place: Place, kind: AssetKind, name: str) -> bool:
    """Whether the curated catalogue answers for this name."""
    if kind != "environments":
        return False
    return place.is_curated or (place.workspace is not None and name.lower().startswith(CURATED_PREFIX))


def _check_writable(place: Place, kind: AssetKind, name: str) -> None:
    if place.is_curated:
        raise Forbidden(
            f"Registry '{place.registry}' comes with Noriba and can not be changed. "
            "Create the asset in your workspace.",
            code="RegistryReadOnly",
        )
    if _is_curated(place, kind, name):
        raise BadRequest(
            f"Names that begin with 'AzureML-' are those of the curated environments. Choose another than '{name}'.",
            code="ReservedName",
            target="name",
        )


# --- versions


async def get_version(call: Call, place: Place, kind: AssetKind) -> Any:
    """One version; ``azureml_default`` is the latest (wire.md, rule 8)."""
    version = call.params["version"]
    found = await _find(call, place, kind, _name(call), "" if version == "azureml_default" else version)
    return await version_document(call, place, found)


async def get_label(call: Call, place: Place, kind: AssetKind) -> Any:
    """The version with a label. ``latest`` is the only one."""
    label = call.params["label"]
    if label.lower() not in ("latest", "default"):
        raise NotFound(
            f"'{_name(call)}' has no label '{label}'; there is only 'latest'.",
            code="LabelNotFound",
            target="label",
        )
    return await version_document(call, place, await _find(call, place, kind, _name(call), ""))


async def _find(call: Call, place: Place, kind: AssetKind, name: str, version: str) -> Version:
    """A version, or the latest one where none is given. Raises NotFound."""
    if _is_curated(place, kind, name):
        found = curated.find_version(name, version or None)
    else:

        def read(connection: sa.Connection) -> Version | None:
            if version:
                return store.find_version(connection, place.scope, kind, name, version)
            return store.find_latest(connection, place.scope, kind, name)

        found = await call.services.database.read(read)
    if found is None:
        what = COMMANDS.get(kind, kind)
        where = f"Registry '{place.registry}'" if place.registry else "The workspace"
        raise NotFound(
            f"{where} has no {what} '{name}'{f' with version {version!r}' if version else ''}. "
            f"See the existing ones with: noriba {what} list",
            code="AssetNotFound",
            target=name,
        )
    return found


async def put_version(call: Call, place: Place, kind: AssetKind) -> Any:
    """Create a version, or change its tags, description, stage or archived state."""
    name, version = _name(call), call.params["version"]
    _check_writable(place, kind, name)
    properties = documents.check_properties(kind, name, version, await call.json())
    if place.workspace is not None:
        properties = await prepare(call.services, place.workspace, call.principal, kind, properties)
    created_by, now = call.principal.name, call.services.clock()
    found, created = await write_twice(
        call,
        lambda connection: versions.put_version(
            connection, place.scope, kind, name, version, properties, created_by=created_by, now=now
        ),
    )
    return 201 if created else 200, await version_document(call, place, found)


async def delete_version(call: Call, place: Place, kind: AssetKind) -> Any:
    """Delete a version; the data that it points at stays."""
    name, version = _name(call), call.params["version"]
    _check_writable(place, kind, name)
    await call.services.database.write(
        lambda connection: versions.delete_version(connection, place.scope, kind, name, version)
    )


async def list_versions(call: Call, place: Place, kind: AssetKind) -> Any:
    """The versions of a name, the newest first. With ``hash``: codes of that content under any name."""
    name, query = _name(call), call.query
    order = listing.parse_order(query.get("$orderby"))
    wanted = VersionFilter(
        view=_view(call),
        stage=query.get("stage"),
        hash=query.get("hash") if kind == "codes" else None,
        version=query.get("version"),
        tags=listing.parse_pairs(query.get("tags")),
        properties=listing.parse_pairs(query.get("properties")),
    )
    top = number_in_query(call, "$top", 0)
    limit = min(top or number_in_query(call, "count", PAGE_SIZE), LARGEST_PAGE)
    if _is_curated(place, kind, name):
        found, following = _page(call, curated.list_versions(name), limit)
        if order.endswith("asc"):
            found.reverse()
    else:
        found, following = await _read_page(
            call,
            lambda connection: listing.list_versions(
                connection,
                place.scope,
                kind,
                name,
                wanted,
                order=order,
                skip=skip_of(call),
                limit=limit,
            ),
        )
    items = [await version_document(call, place, version, brief=True) for version in found]
    if top:
        # $top is how many the caller wants in all.
        left = top - len(items)
        return page_answer(call, items, following if left > 0 else None, **{"$top": left})
    return page_answer(call, items, following)


# --- containers


async def get_container(call: Call, place: Place, kind: AssetKind) -> Any:
    """A name, with its latest and next version."""
    name = _name(call)
    if _is_curated(place, kind, name):
        found = curated.find_container(name)
        if found is None:
            raise NotFound(f"There is no curated environment '{name}'.", code="AssetNotFound", target=name)
    else:
        found = await call.services.database.read(
            lambda connection: versions.require_container(connection, place.scope, kind, name)
        )
    return container_document(place, found)


async def put_container(call: Call, place: Place, kind: AssetKind) -> Any:
    """Create a name without versions, or change its tags, description or archived state."""
    name = _name(call)
    _check_writable(place, kind, name)
    body = await call.json()
    properties = body.get("properties") or {}
    if not isinstance(properties, dict):
        raise BadRequest("'properties' must be a JSON object.", target="properties")
    created_by, now = call.principal.name, call.services.clock()
    found, created = await write_twice(
        call,
        lambda connection: versions.put_container(
            connection, place.scope, kind, name, properties, created_by=created_by, now=now
        ),
    )
    return 201 if created else 200, container_document(place, found)


async def delete_container(call: Call, place: Place, kind: AssetKind) -> Any:
    """Delete a name with all its versions."""
    name = _name(call)
    _check_writable(place, kind, name)
    await call.services.database.write(
        lambda connection: versions.delete_container(connection, place.scope, kind, name)
    )


async def list_containers(call: Call, place: Place, kind: AssetKind) -> Any:
    """The names, in alphabetical order."""
    limit = number_in_query(call, "count", PAGE_SIZE, largest=LARGEST_PAGE)
    if place.is_curated:
        everything = curated.list_containers() if kind == "environments" else []
        found, following = _page(call, everything, limit)
    else:
        view = _view(call)
        found, following = await _read_page(
            call,
            lambda connection: listing.list_containers(
                connection, place.scope, kind, view=view, skip=skip_of(call), limit=limit
            ),
        )
    return page_answer(call, [container_document(place, item) for item in found], following)


# --- uploads


async def start_pending_upload(call: Call, place: Place, kind: AssetKind) -> Any:
    """A container of the version's own to upload to, with a signature; the same one when asked again."""
    return {
        "pendingUploadType": "TemporaryBlobReference",
        **await upload_slot(call, place, kind, _name(call), call.params["version"]),
    }


async def upload_slot(call: Call, place: Place, kind: AssetKind, name: str, version: str) -> dict[str, Any]:
    """The place to upload a version's files to."""
    _check_writable(place, kind, name)
    documents.check_name(name)
    documents.check_name(version, what="version")
    if place.workspace is not None:
        account, account_id = place.workspace.storage_account, uploads.account_id(place.workspace)
    else:
        account, account_id = REGISTRY_ACCOUNT, place.registry
    upload = await uploads.start(call.services, place.scope, account, kind, name, version)
    return {
        "pendingUploadId": upload.id,
        "blobReferenceForConsumption": {
            "blobUri": upload.url,
            "storageAccountArmId": account_id,
            "credential": {"credentialType": "SAS", "sasUri": f"{upload.url}?{upload.sas}"},
        },
    }


# --- helpers


async def write_twice(call: Call, statement: Callable[[sa.Connection], T]) -> T:
    """Write; once more when another replica of the server made the same row first, which is then an update."""
    try:
        return await call.services.database.write(statement)
    except sa.exc.IntegrityError:
        return await call.services.database.write(statement)


async def _read_page(
    call: Call, statement: Callable[[sa.Connection], tuple[list[T], str | None]]
) -> tuple[list[T], str | None]:
    try:
        return await call.services.database.read(statement)
    except ValueError:
        raise bad_skip() from None


def _page(call: Call, items: list[T], limit: int) -> tuple[list[T], str | None]:
    """A page of a list that is in memory; its ``$skip`` is a position."""
    skip = skip_of(call) or "0"
    if not skip.isdecimal():
        raise bad_skip()
    start = int(skip[:9])
    end = start + limit
    return items[start:end], str(end) if end < len(items) else None


def _view(call: Call) -> store.ListView:
    text = call.query.get("listviewtype") or "ActiveOnly"
    views: dict[str, store.ListView] = {
        "activeonly": "ActiveOnly",
        "archivedonly": "ArchivedOnly",
        "all": "All",
    }
    # Some clients send the name of their enumeration's member: ListViewType.ACTIVE_ONLY.
    view = views.get(text.lower().removeprefix("listviewtype.").replace("_", ""))
    if view is None:
        raise BadRequest(
            f"'{text[:50]}' is not a view. Use ActiveOnly, ArchivedOnly or All.", target="listViewType"
        )
    return view


# --- routes


def asset_routes(routes: Routes, prefix: str, place_of: PlaceOf) -> None:
    """Add the routes of all kinds of assets below ``prefix``."""
    for kind in KINDS:
        base, name = f"{prefix}/{kind}", f"{prefix}/{kind}/{{name}}"
        version = f"{name}/versions/{{version}}"
        for method, path, handler in (
            ("GET", base, list_containers),
            ("GET", name, get_container),
            ("PUT", name, put_container),
            ("DELETE", name, delete_container),
            ("GET", f"{name}/versions", list_versions),
            ("GET", version, get_version),
            ("PUT", version, put_version),
            ("DELETE", version, delete_version),
            ("GET", f"{name}/labels/{{label}}", get_label),
            ("POST", f"{version}/startPendingUpload", start_pending_upload),
        ):
            routes.add(method, path)(partial(_with_place, place_of, handler, kind))


async def _with_place(place_of: PlaceOf, handler: Any, kind: AssetKind, call: Call) -> Any:
    return await handler(call, await place_of(call), kind)


routes = Routes()
asset_routes(routes, WORKSPACE, workspace_place)
