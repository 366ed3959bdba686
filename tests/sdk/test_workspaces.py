"""Workspaces through the unmodified SDK."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.entities import Environment, Workspace
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential

from tests.conftest import RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE, WORKSPACE_PATH
from tests.server import ServerProcess

pytestmark = pytest.mark.sdk


@pytest.fixture
def other(server: ServerProcess, ml_client: MLClient, name: str) -> Iterator[str]:
    """A second workspace."""
    path = WORKSPACE_PATH.replace(f"/workspaces/{WORKSPACE}", f"/workspaces/{name}")
    with server.client() as client:
        answer = client.put(path, json={"location": "local", "properties": {"description": "second"}})
        assert answer.status_code == 201, answer.text
        yield name
        client.delete(path)


def test_the_first_workspace_is_there(ml_client: MLClient) -> None:
    found = ml_client.workspaces.get(WORKSPACE)
    assert (found.name, found.resource_group, found.location) == (WORKSPACE, RESOURCE_GROUP, "local")
    assert found.discovery_url.endswith("/discovery")
    assert found.id == WORKSPACE_PATH


def test_workspaces_are_listed(ml_client: MLClient, other: str) -> None:
    assert {WORKSPACE, other} <= {item.name for item in ml_client.workspaces.list()}
    assert {WORKSPACE, other} <= {item.name for item in ml_client.workspaces.list(scope="subscription")}


def test_workspaces_do_not_share(
    ml_client: MLClient, credential: DefaultAzureCredential, other: str, name: str
) -> None:
    second = MLClient(credential, SUBSCRIPTION, RESOURCE_GROUP, other, show_progress=False)
    second.environments.create_or_update(Environment(name=name, version="1", image="a:1"))
    assert second.environments.get(name, version="1").image == "a:1"
    with pytest.raises(ResourceNotFoundError):
        ml_client.environments.get(name, version="1")
    first, their = ml_client.datastores.get_default(), second.datastores.get_default()
    assert first.account_name != their.account_name


def test_a_workspace_is_created_updated_and_deleted(
    ml_client: MLClient, credential: DefaultAzureCredential, new_name: object
) -> None:
    assert callable(new_name)
    name = str(new_name())
    made = ml_client.workspaces.begin_create(
        Workspace(
            name=name, location="local", description="made by the SDK", display_name="Made", tags={"a": "b"}
        )
    ).result()
    assert (made.name, made.description, made.display_name) == (name, "made by the SDK", "Made")
    assert made.tags["a"] == "b"
    inside = MLClient(credential, SUBSCRIPTION, RESOURCE_GROUP, name, show_progress=False)
    assert inside.datastores.get_default().name == "workspaceblobstore"
    changed = ml_client.workspaces.begin_update(made, description="changed", tags={"c": "d"}).result()
    assert changed.description == "changed"
    assert ml_client.workspaces.get(name).tags["c"] == "d"
    ml_client.workspaces.begin_delete(name, delete_dependent_resources=False).result()
    with pytest.raises(ResourceNotFoundError):
        ml_client.workspaces.get(name)


def test_the_workspace_that_is_always_made_can_not_be_deleted(ml_client: MLClient) -> None:
    with pytest.raises(HttpResponseError, match="starts with"):
        ml_client.workspaces.begin_delete(WORKSPACE, delete_dependent_resources=False).result()
