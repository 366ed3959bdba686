"""Deployments of templates, as far as clients use them to create a workspace (wire.md 11).

The SDK creates workspaces by a template with the workspace's properties as parameters. The parameters are all that
is read of it: what else the template would make (storage account, vault …) every workspace here has already.
"""

from __future__ import annotations

from typing import Any

from noriba.models.errors import BadRequest, Forbidden
from noriba.rest.call import Call
from noriba.rest.documents import iso
from noriba.rest.router import Routes
from noriba.rest.workspaces import make_workspace

routes = Routes()

_DEPLOYMENT = (
    "/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.Resources/deployments/{deployment}"
)


@routes.put(_DEPLOYMENT)
async def put_deployment(call: Call) -> Any:
    """Create the workspace that a template's parameters describe."""
    body = await call.json()
    properties = body.get("properties")
    parameters = properties.get("parameters") if isinstance(properties, dict) else None
    if not isinstance(parameters, dict) or "workspaceName" not in parameters:
        raise BadRequest(
            "Only templates that create a workspace can be deployed here: those with a parameter 'workspaceName'.",
            code="UnsupportedTemplate",
            target="properties.parameters",
        )
    values = {
        name: item.get("value") if isinstance(item, dict) else None for name, item in parameters.items()
    }
    group = str(values.get("resourceGroupName") or call.params["group"])
    workspace, _ = await make_workspace(call, group, str(values["workspaceName"]), _workspace_body(values))
    name = call.params["deployment"]
    return 201, {
        "id": _DEPLOYMENT.format(**call.params),
        "name": name,
        "type": "Microsoft.Resources/deployments",
        "properties": {
            "provisioningState": "Succeeded",
            "mode": "Incremental",
            "timestamp": iso(call.services.clock()),
            "duration": "PT0S",
            "correlationId": workspace.id,
            "outputResources": [{"id": workspace.arm_id}],
            "dependencies": [],
        },
    }


@routes.get("/subscriptions/{sub}/resourceGroups/{group}/deployments/{deployment}/operations")
@routes.get(f"{_DEPLOYMENT}/operations")
async def list_deployment_operations(call: Call) -> Any:
    """The steps of a deployment that go on: none, as a deployment is done when it is answered."""
    if not call.principal.roles:
        raise Forbidden(f"'{call.principal.name}' has no role here. Ask an administrator for one.")
    return {"value": []}


def _workspace_body(values: dict[str, Any]) -> dict[str, Any]:
    """The body of a workspace from a template's parameters."""
    tags = values.get("tagValues")
    named = {
        "friendlyName": values.get("friendlyName"),
        "description": values.get("description"),
        "publicNetworkAccess": values.get("publicNetworkAccess"),
        "imageBuildCompute": values.get("imageBuildCompute"),
        "hbiWorkspace": str(values.get("confidential_data") or "").lower() == "true",
    }
    return {
        "location": values.get("location"),
        "kind": values.get("kind"),
        "tags": tags if isinstance(tags, dict) else {},
        "properties": {name: value for name, value in named.items() if value not in (None, "")},
    }
