"""Workspaces (wire.md 2.1)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from noriba import workspaces
from noriba.assets.uploads import account_id
from noriba.database.tables import workspaces as table
from noriba.identity.managed import workspace_identity_id
from noriba.models.errors import BadRequest, Conflict, Forbidden
from noriba.models.workspace import Workspace
from noriba.rest.call import Call
from noriba.rest.documents import PROVIDER, page_answer, skip_of, system_data
from noriba.rest.operations import accepted, insert_operation, operation_headers
from noriba.rest.router import SIGNED_IN, WORKSPACE, Routes
from noriba.workspaces import check_workspace_name, delete_workspace, workspace_of

routes = Routes()

_GROUP = f"/subscriptions/{{sub}}/resourceGroups/{{group}}/providers/{PROVIDER}/workspaces"
_SUBSCRIPTION = f"/subscriptions/{{sub}}/providers/{PROVIDER}/workspaces"
PAGE = 100


@routes.get(WORKSPACE)
async def get_workspace(call: Call) -> Any:
    """One workspace."""
    return _document(call, await _row(call, call.workspace))


@routes.get(_GROUP)
@routes.get(_SUBSCRIPTION)
async def list_workspaces(call: Call) -> Any:
    """The workspaces of a resource group or subscription in which the caller has a role."""
    conditions = [sa.func.lower(table.c.subscription_id) == call.params["sub"].lower()]
    if group := call.params.get("group"):
        conditions.append(sa.func.lower(table.c.resource_group) == group.lower())
    if skip := skip_of(call):
        conditions.append(table.c.key > skip)
    roles = call.principal.roles
    if "*" not in roles:
        conditions.append(table.c.id.in_(list(roles)))
    statement = sa.select(table).where(*conditions).order_by(table.c.key).limit(PAGE + 1)
    rows = await call.services.database.read(lambda connection: connection.execute(statement).all())
    following = rows[PAGE - 1].key if len(rows) > PAGE else None
    return page_answer(call, [_document(call, row) for row in rows[:PAGE]], following)


@routes.put(WORKSPACE, access=SIGNED_IN)
async def put_workspace(call: Call) -> Any:
    """Create a workspace with its datastores, or replace the document of one that exists."""
    body = await call.json()
    _check_body(body)
    workspace, created = await make_workspace(call, call.params["group"], call.params["workspace"], body)
    row = await _row(call, workspace)
    operation = await _record(call, workspace)
    headers = operation_headers(call, workspace.subscription_id, workspace.location, operation)
    return accepted(201 if created else 200, _document(call, row), headers)


async def make_workspace(call: Call, group: str, name: str, body: dict[str, Any]) -> tuple[Workspace, bool]:
    """Create or update a workspace as an ARM body says; returns it and whether it is new.

    Creating takes the role of an owner of everything, updating that of an owner of the workspace.
    """
    check_workspace_name(group, name)
    subscription = call.params["sub"]
    location = str(body.get("location") or call.services.settings.workspace.location)
    document = _stored(body)
    created_by, now = call.principal.name, call.services.clock()
    may_create = call.principal.may("admin", "*")

    def write(connection: sa.Connection) -> tuple[Workspace, bool]:
        return workspaces.put_workspace(
            connection,
            subscription_id=subscription,
            resource_group=group,
            name=name,
            location=location,
            document=document,
            created_by=created_by,
            now=now,
            check=lambda existing: _check_role(call, existing, may_create),
        )

    try:
        result = await call.services.database.write(write)
    except sa.exc.IntegrityError:
        result = await call.services.database.write(write)
    call.services.workspaces.forget()
    return result


def _check_role(call: Call, existing: Workspace | None, may_create: bool) -> None:
    if existing is None and not may_create:
        raise Forbidden(
            f"'{call.principal.name}' may not create workspaces. Ask an administrator to create it.",
            target="workspace",
        )
    if existing is not None and not call.principal.may("admin", existing.id):
        raise Forbidden(
            f"'{call.principal.name}' is not an owner of workspace '{existing.name}'.", target="workspace"
        )


@routes.patch(WORKSPACE, action="admin")
async def patch_workspace(call: Call) -> Any:
    """Change tags, description, display name and other properties; what is not named stays."""
    body = await call.json()
    _check_body(body)
    workspace = call.workspace
    sent = _stored(body)

    def write(connection: sa.Connection) -> None:
        held = connection.execute(sa.select(table.c.document).where(table.c.id == workspace.id)).scalar_one()
        merged = {**held, **sent}
        if "properties" in sent:
            merged["properties"] = {**(held.get("properties") or {}), **sent["properties"]}
        connection.execute(table.update().where(table.c.id == workspace.id).values(document=merged))

    await call.services.database.write(write)
    return _document(call, await _row(call, workspace))


@routes.delete(WORKSPACE, action="admin")
async def remove_workspace(call: Call) -> Any:
    """Delete a workspace with everything in it. Refused while jobs run."""
    workspace, now = call.workspace, call.services.clock()
    first = call.services.settings.workspace
    if workspace.arm_id.lower() == _first_id(call).lower():
        raise Conflict(
            f"'{first.name}' is the workspace that this installation starts with (settings, section workspace) "
            "and would be made again. Name another one there first.",
            code="InitialWorkspace",
            target="workspace",
        )
    await call.services.database.write(lambda connection: delete_workspace(connection, workspace, now=now))
    call.services.workspaces.forget()
    call.services.principals.forget()
    operation = await _record(call, workspace, gone=True)
    headers = operation_headers(call, workspace.subscription_id, workspace.location, operation)
    return accepted(202, None, headers)


def _first_id(call: Call) -> str:
    first = call.services.settings.workspace
    return Workspace(
        id="",
        subscription_id=first.subscription_id,
        resource_group=first.resource_group,
        name=first.name,
        location=first.location,
        storage_account="",
    ).arm_id


@routes.get(WORKSPACE + "/features")
async def list_features(call: Call) -> Any:
    """Features that can be switched on per workspace: none."""
    return {"value": []}


async def _record(call: Call, workspace: Workspace, *, gone: bool = False) -> str:
    now = call.services.clock()
    return await call.services.database.write(
        lambda connection: insert_operation(connection, None if gone else workspace.id, now=now)
    )


async def _row(call: Call, workspace: Workspace) -> sa.Row[Any]:
    return await call.services.database.read(
        lambda connection: connection.execute(sa.select(table).where(table.c.id == workspace.id)).one()
    )


def _check_body(body: dict[str, Any]) -> None:
    for field in ("properties", "tags", "identity"):
        if body.get(field) is not None and not isinstance(body[field], dict):
            raise BadRequest(f"'{field}' must be a JSON object.", code="ValidationError", target=field)


_COMPUTED = ("workspaceId", "discoveryUrl", "mlFlowTrackingUri", "provisioningState", "tenantId")


def _stored(body: dict[str, Any]) -> dict[str, Any]:
    """What is kept of an ARM body: all but what the server says itself."""
    kept = {
        field: value
        for field, value in body.items()
        if field not in ("id", "name", "type", "location", "systemData") and value is not None
    }
    if "properties" in kept:
        kept["properties"] = {
            field: value for field, value in kept["properties"].items() if field not in _COMPUTED
        }
    return kept


def _document(call: Call, row: sa.Row[Any]) -> dict[str, Any]:
    workspace = workspace_of(row)
    services = call.services
    held: dict[str, Any] = row.document
    arm_id = workspace.arm_id
    tracking_path = quote(arm_id, safe="/")
    return {
        "tags": {},
        "kind": "Default",
        "sku": {"name": "Basic", "tier": "Basic"},
        **{field: value for field, value in held.items() if field != "properties"},
        "id": arm_id,
        "name": workspace.name,
        "type": f"{PROVIDER}/workspaces",
        "location": workspace.location,
        "identity": {
            "type": "SystemAssigned",
            **(held.get("identity") or {}),
            "principalId": workspace_identity_id(workspace.id),
            "tenantId": call.principal.tenant_id,
        },
        "systemData": system_data(row.created_at, row.created_by),
        "properties": {
            "friendlyName": workspace.name,
            "description": "",
            "hbiWorkspace": False,
            "publicNetworkAccess": "Enabled",
            "v1LegacyMode": False,
            "systemDatastoresAuthMode": "accessKey",
            **(held.get("properties") or {}),
            "workspaceId": workspace.id,
            "tenantId": call.principal.tenant_id,
            "storageAccount": account_id(workspace),
            "discoveryUrl": f"{services.base_url}/discovery",
            "mlFlowTrackingUri": f"azureml://{services.host}/mlflow/v1.0{tracking_path}",
            "provisioningState": "Succeeded",
        },
    }
