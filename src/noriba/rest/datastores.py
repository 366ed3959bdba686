"""Datastores (wire.md 2.2)."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from noriba import datastores
from noriba.assets.locations import OWN_SUFFIX, open_secrets, own_account
from noriba.datastores import CONTAINER_FIELDS, Datastore
from noriba.models.errors import BadRequest, Forbidden, NotFound
from noriba.rest.call import Call
from noriba.rest.documents import (
    LARGEST_PAGE,
    PROVIDER,
    flag_in_query,
    number_in_query,
    page_answer,
    skip_of,
    system_data,
)
from noriba.rest.router import WORKSPACE, Routes
from noriba.storage import sas

routes = Routes()

COUNT = 30
HOUR_S = 3600.0
LONGEST_SAS_HOURS = 7 * 24


@routes.get(WORKSPACE + "/datastores")
async def list_datastores(call: Call) -> Any:
    """The workspace's datastores in alphabetical order."""
    limit = number_in_query(call, "count", COUNT, largest=LARGEST_PAGE)
    is_default = flag_in_query(call, "isDefault")
    names = tuple(name for name in call.query.get("names", "").split(",") if name)
    found = await call.services.database.read(
        lambda connection: datastores.page(
            connection,
            call.workspace.id,
            after=skip_of(call) or "",
            limit=limit + 1,
            is_default=is_default,
            names=names,
            search=call.query.get("searchtext", ""),
        )
    )
    following = found[limit - 1].name if len(found) > limit else None
    return page_answer(call, [_document(call, item) for item in found[:limit]], following)


@routes.get(WORKSPACE + "/datastores/{name}")
async def get_datastore(call: Call) -> Any:
    """One datastore, without its secrets."""
    return _document(call, await _get(call))


@routes.put(WORKSPACE + "/datastores/{name}")
async def put_datastore(call: Call) -> Any:
    """Create or replace a datastore. Its secrets are sealed and never shown again but by listSecrets."""
    name = call.params["name"]
    body = await call.json()
    properties = body.get("properties")
    if not isinstance(properties, dict):
        raise BadRequest("A datastore needs 'properties'.", code="ValidationError", target="properties")
    datastores.check_name(name)
    properties, secret, is_default = _checked(name, properties)
    await _check_account(call, properties)
    sealed = None if secret is None else call.services.keys.seal(msgspec.json.encode(secret))
    created_by, now = call.principal.name, call.services.clock()

    def write(connection: sa.Connection) -> tuple[Datastore, bool]:
        return datastores.put(
            connection,
            call.workspace.id,
            name,
            properties,
            sealed,
            is_default=is_default,
            created_by=created_by,
            now=now,
        )

    try:
        found, created = await call.services.database.write(write)
    except sa.exc.IntegrityError:
        found, created = await call.services.database.write(write)
    return 201 if created else 200, _document(call, found)


@routes.delete(WORKSPACE + "/datastores/{name}")
async def delete_datastore(call: Call) -> Any:
    """Forget a datastore; what it holds stays."""
    workspace_id, name = call.workspace.id, call.params["name"]
    await call.services.database.write(lambda connection: datastores.delete(connection, workspace_id, name))


@routes.post(WORKSPACE + "/datastores/{name}/listSecrets", action="read")
async def list_secrets(call: Call) -> Any:
    """What opens a datastore: a short-lived signature for a built-in one, the stored secret of a user's.

    A reader of the workspace gets a signature that reads; stored secrets are for those who may write.
    """
    found = await _get(call)
    may_write = call.principal.may("write", call.workspace.id)
    if found.is_built_in:
        return {"secretsType": "Sas", "sasToken": await _built_in_sas(call, found, may_write=may_write)}
    if not may_write:
        raise Forbidden(
            f"The secrets of datastore '{found.name}' are for those who may write in this workspace. "
            "Ask an owner of the workspace for the role Contributor.",
            target=found.name,
        )
    secret = open_secrets(call.services, found)
    if not secret:
        raise BadRequest(
            f"Datastore '{found.name}' has no stored credentials: it is opened with the caller's own identity.",
            code="NoCredentials",
            target=found.name,
        )
    return secret


async def _built_in_sas(call: Call, found: Datastore, *, may_write: bool) -> str:
    body = await call.json()
    hours = body.get("expireAfterHours") or 1
    if not isinstance(hours, int | float) or isinstance(hours, bool) or hours <= 0:
        raise BadRequest("'expireAfterHours' must be a positive number.", target="expireAfterHours")
    services, account = call.services, call.workspace.storage_account
    key = services.keys.account_key(account)
    expires_at = services.clock() + min(hours, LONGEST_SAS_HOURS) * HOUR_S
    permissions = sas.WRITE if may_write else sas.READ
    if found.name == datastores.DEFAULT:
        # The SDK downloads code, each in a container of its own, with what opens this datastore (wire.md 3.2). It
        # opens nothing that the caller could not ask for: all containers of the account are the workspace's.
        return sas.account_sas(key, account, permissions, expires_at)
    return sas.container_sas(key, account, found.container, permissions, expires_at)


async def _get(call: Call) -> Datastore:
    workspace_id, name = call.workspace.id, call.params["name"]
    return await call.services.database.read(
        lambda connection: datastores.get(connection, workspace_id, name)
    )


def _checked(name: str, sent: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None, bool]:
    """Properties without secrets, the secret (None: none was sent), and whether it becomes the default."""
    kind = sent.get("datastoreType")
    if kind not in datastores.TYPES:
        raise BadRequest(
            f"'datastoreType' must be one of {', '.join(datastores.TYPES)}, not {kind!r}.",
            code="ValidationError",
            target="properties.datastoreType",
        )
    required = [field for field in ("accountName", CONTAINER_FIELDS.get(kind)) if field]
    if kind in CONTAINER_FIELDS and name not in datastores.BUILT_IN:
        for field in required:
            if not isinstance(sent.get(field), str) or not sent[field]:
                raise BadRequest(
                    f"A datastore of type {kind} needs '{field}'.",
                    code="ValidationError",
                    target=f"properties.{field}",
                )
    credentials = sent.get("credentials") or {"credentialsType": "None"}
    if not isinstance(credentials, dict):
        raise BadRequest("'credentials' must be a JSON object.", target="properties.credentials")
    secret = credentials.get("secrets")
    if secret is not None and not isinstance(secret, dict):
        raise BadRequest("'secrets' must be a JSON object.", target="properties.credentials.secrets")
    properties = {field: value for field, value in sent.items() if field != "isDefault" and value is not None}
    properties["credentials"] = {field: value for field, value in credentials.items() if field != "secrets"}
    return properties, secret, bool(sent.get("isDefault"))


async def _check_account(call: Call, properties: dict[str, Any]) -> None:
    """A datastore on this server's own storage is for those who may write to the account's workspace.

    Jobs read it without further proof, so this is where access is decided.
    """
    account = own_account(str(properties.get("accountName") or ""))
    if not account:
        return
    try:
        owner = await call.services.workspaces.by_account(account)
    except NotFound as error:
        raise BadRequest(error.message, code=error.code, target="properties.accountName") from None
    if not call.principal.may("write", owner.id):
        raise Forbidden(
            f"Storage account '{account}' belongs to a workspace that you may not write to.",
            target="properties.accountName",
        )


def _document(call: Call, datastore: Datastore) -> dict[str, Any]:
    workspace = call.workspace
    place = {"subscriptionId": workspace.subscription_id, "resourceGroup": workspace.resource_group}
    properties = {"description": None, "tags": {}, "properties": {}, **datastore.properties}
    properties["isDefault"] = datastore.is_default
    if datastore.is_built_in:
        properties |= {
            "accountName": f"{call.services.host}/blob/{workspace.storage_account}",
            "endpoint": OWN_SUFFIX,
            "protocol": "https",
            "credentials": {"credentialsType": "Sas"},
            "serviceDataAccessAuthIdentity": "None",
            **place,
        }
    elif account := own_account(str(properties.get("accountName") or "")):
        # The server's name and port may have changed since.
        properties["accountName"] = f"{call.services.host}/blob/{account}"
    return {
        "id": f"{workspace.arm_id}/datastores/{datastore.name}",
        "name": datastore.name,
        "type": f"{PROVIDER}/workspaces/datastores",
        "properties": properties,
        "systemData": system_data(datastore.created_at, datastore.created_by, datastore.modified_at),
    }
