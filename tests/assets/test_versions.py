"""Versions: creating, merging, counting, archiving."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from noriba.assets import documents, store, versions
from noriba.assets.registering import register_output_in
from noriba.models.asset import AssetKind, Container, Version
from noriba.models.errors import BadRequest, Conflict
from noriba.services import Services
from tests.assets.conftest import NOW

URI = "azureml://datastores/workspaceblobstore/paths/x"


def put(
    services: Services, version: str, kind: AssetKind = "data", name: str = "d", **values: Any
) -> tuple[Version, bool]:
    properties = {"dataType": "uri_file", "dataUri": URI, **values} if kind == "data" else values
    return services.database.write_now(
        lambda connection: versions.put_version(
            connection, "scope", kind, name, version, properties, created_by="me", now=NOW
        )
    )


def container(services: Services, name: str = "d") -> Container:
    found = services.database.read_now(
        lambda connection: store.find_container(connection, "scope", "data", name)
    )
    assert found is not None
    return found


def test_numbers_count_up_from_the_highest(services: Services) -> None:
    for version, following in (("1", "2"), ("7", "8"), ("3", "8"), ("beta", "8"), ("08", "9"), ("9.1", "9")):
        put(services, version)
        assert (container(services).latest_version, container(services).next_version) == (version, following)


def test_numbers_are_not_used_again(services: Services) -> None:
    put(services, "1")
    put(services, "2")
    services.database.write_now(
        lambda connection: versions.delete_version(connection, "scope", "data", "d", "2")
    )
    assert (container(services).latest_version, container(services).next_version) == ("1", "3")


def test_huge_numbers_are_names(services: Services) -> None:
    put(services, "20260101123456")
    assert container(services).next_version == "20260101123457"
    put(services, "9" * 40)
    assert container(services).next_version == "20260101123457"


def test_the_name_goes_with_its_last_version(services: Services) -> None:
    put(services, "1")
    services.database.write_now(
        lambda connection: versions.delete_version(connection, "scope", "data", "d", "1")
    )
    assert (
        services.database.read_now(lambda connection: store.find_container(connection, "scope", "data", "d"))
        is None
    )


def test_names_are_one_in_any_case(services: Services) -> None:
    put(services, "1", name="Data")
    found, created = put(services, "2", name="DATA")
    assert (found.name, created) == ("Data", True)
    assert container(services, "dAtA").latest_version == "2"


def test_latest_is_not_an_archived_one(services: Services) -> None:
    put(services, "1")
    put(services, "2")
    put(services, "2", isArchived=True)
    assert container(services).latest_version == "1"
    put(services, "1", isArchived=True)
    # All are archived: the one created last is better than none.
    assert container(services).latest_version == "2"


def test_a_new_version_brings_an_archived_name_back(services: Services) -> None:
    put(services, "1")
    services.database.write_now(
        lambda connection: versions.put_container(
            connection, "scope", "data", "d", {"isArchived": True}, created_by="me", now=NOW
        )
    )
    assert container(services).is_archived
    put(services, "2")
    assert not container(services).is_archived


def test_updates_replace_tags_and_add_properties(services: Services) -> None:
    put(services, "1", tags={"a": "1"}, properties={"p": "1"}, description="old", unknown={"kept": True})
    found, created = put(services, "1", tags={"b": "2"}, properties={"q": "2"})
    assert not created
    assert found.properties["tags"] == {"b": "2"}
    assert found.properties["properties"] == {"p": "1", "q": "2"}
    assert found.properties["description"] == "old"
    assert found.properties["unknown"] == {"kept": True}


ENVIRONMENT = {"image": "i:1", "condaFile": "a"}
SPEC = {"type": "command", "command": "x", "display_name": "old"}


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("environments", ENVIRONMENT, {**ENVIRONMENT, "condaFile": "b"}),
        ("environments", ENVIRONMENT, {"image": "i:1"}),
        ("environments", {"build": {"contextUri": "https://h/blob/a/c/x/"}}, ENVIRONMENT),
        (
            "models",
            {"modelUri": URI, "modelType": "custom_model"},
            {"modelUri": URI, "modelType": "mlflow_model"},
        ),
        ("codes", {"codeUri": "a"}, {"codeUri": "b"}),
        ("components", {"componentSpec": SPEC}, {"componentSpec": {**SPEC, "command": "y"}}),
    ],
)
def test_content_never_changes(
    services: Services, kind: AssetKind, first: dict[str, Any], second: dict[str, Any]
) -> None:
    put(services, "1", kind, **first)
    with pytest.raises(Conflict, match="Create a new version"):
        put(services, "1", kind, **second)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("environments", ENVIRONMENT, {**ENVIRONMENT, "osType": "Linux", "description": "d"}),
        (
            "environments",
            {"build": {"contextUri": "https://h:1/blob/a.blob.local/c/x/"}},
            {"build": {"contextUri": "https://h:2/blob/a.blob.local/c/x/", "dockerfilePath": "Dockerfile"}},
        ),
        ("components", {"componentSpec": SPEC}, {"componentSpec": {**SPEC, "display_name": "new"}}),
    ],
)
def test_the_same_content_is_the_same(
    services: Services, kind: AssetKind, first: dict[str, Any], second: dict[str, Any]
) -> None:
    put(services, "1", kind, **first)
    assert put(services, "1", kind, **second)[1] is False


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "a/b", "ü", "a" * 256, "azureml:x"])
def test_bad_names_and_versions(name: str) -> None:
    with pytest.raises(BadRequest, match="letters, digits"):
        documents.check_name(name)


@pytest.mark.parametrize(
    ("kind", "properties", "target"),
    [
        ("data", {"dataUri": URI}, "properties.dataType"),
        ("data", {"dataType": "uri_file"}, "properties.dataUri"),
        ("data", {"dataType": "csv", "dataUri": URI}, "properties.dataType"),
        ("data", {"dataType": "uri_file", "dataUri": URI, "tags": []}, "properties.tags"),
        ("models", {}, "properties.modelUri"),
        ("codes", {"codeUri": ""}, "properties.codeUri"),
        ("environments", {"condaFile": "x"}, "properties.image"),
        ("environments", {"build": {}}, "properties.contextUri"),
        ("components", {"componentSpec": {}}, "properties.componentSpec.type"),
        ("components", {"componentSpec": "x"}, "properties.componentSpec"),
    ],
)
def test_documents_that_say_too_little(kind: AssetKind, properties: dict[str, Any], target: str) -> None:
    with pytest.raises(BadRequest) as caught:
        documents.check_properties(kind, "n", "1", {"properties": properties})
    assert caught.value.target == target


def register(services: Services, **values: Any) -> Version:
    def write(connection: sa.Connection) -> Version:
        return register_output_in(
            connection,
            **{
                "scope": "scope",
                "name": "out",
                "version": None,
                "type": "uri_folder",
                "uri": URI + "/",
                "job": "j",
                "output": "o",
                "created_by": "me",
                "now": NOW,
                **values,
            },
        )

    return services.database.write_now(write)


def test_outputs_are_registered_once(services: Services) -> None:
    assert register(services).version == "1"
    assert register(services).version == "1"
    assert register(services, uri=URI + "2/").version == "2"
    model = register(services, type="mlflow_model", version="5")
    assert (model.kind, model.version, model.properties["jobName"]) == ("models", "5", "j")
    with pytest.raises(Conflict):
        register(services, type="mlflow_model", version="5", uri=URI + "3")
    with pytest.raises(BadRequest):
        register(services, name="no good")
