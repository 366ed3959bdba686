"""Registered models are model assets."""

from __future__ import annotations

from typing import Any

import pytest

from noriba.assets import store, versions
from noriba.database import Database
from noriba.models.errors import BadRequest, NotFound
from noriba.tracking import registry
from noriba.tracking.registry_rows import ModelVersion, RegisteredModel
from noriba.tracking.registry_search import search_models_in, search_versions_in

WS = "ws"


def create(database: Database, name: str, **values: Any) -> RegisteredModel:
    options: dict[str, Any] = {"description": "", "tags": {}, "created_by": "u", "now": 1.0, **values}
    return database.write_now(lambda c: registry.create_model_in(c, WS, name, **options))


def add(database: Database, name: str, **values: Any) -> ModelVersion:
    options: dict[str, Any] = {
        "source": "runs:/r/model",
        "uri": "azureml://datastores/workspaceartifactstore/paths/x",
        "run_id": "r",
        "run_link": "",
        "model_id": "",
        "description": "d",
        "tags": {},
        "user": "u",
        "now": 2.0,
        **values,
    }
    return database.write_now(lambda c: registry.create_version_in(c, WS, name, **options))


def find(database: Database, text: str = "", *, order: list[str] | None = None) -> list[str]:
    found, _ = database.read_now(
        lambda c: search_versions_in(c, WS, filter_text=text, order_by=order, limit=100, offset=0)
    )
    return [f"{version.name}/{version.version}" for version in found]


def test_versions_are_assets_and_assets_are_versions(database: Database) -> None:
    create(database, "Credit", description="about", tags={"team": "risk"})
    version = add(database, "Credit", tags={"a": "b"})
    assert (version.version, version.stage, version.run_id) == ("1", "None", "r")
    asset = database.read_now(lambda c: store.find_version(c, WS, "models", "credit", "1"))
    assert asset is not None
    assert asset.properties["modelType"] == "mlflow_model"
    assert asset.properties["jobName"] == "r"
    database.write_now(
        lambda c: versions.put_version(
            c,
            WS,
            "models",
            "Credit",
            "2",
            {"modelType": "custom_model", "modelUri": "azureml://datastores/d/paths/m", "tags": {"x": "y"}},
            created_by="sdk",
            now=3.0,
        )
    )
    by_sdk = database.read_now(lambda c: registry.get_version_in(c, WS, "Credit", "2"))
    assert (by_sdk.source, by_sdk.tags, by_sdk.user_id) == (
        "azureml://datastores/d/paths/m",
        {"x": "y"},
        "sdk",
    )
    model = database.read_now(lambda c: registry.get_model_in(c, WS, "Credit"))
    assert (model.description, model.tags) == ("about", {"team": "risk"})
    assert [latest.version for latest in model.latest] == ["2"]


def test_names_are_one_regardless_of_case_and_taken_once(database: Database) -> None:
    create(database, "m")
    with pytest.raises(BadRequest) as error:
        create(database, "M")
    assert error.value.code == "RESOURCE_ALREADY_EXISTS"
    with pytest.raises(NotFound):
        add(database, "other")


def test_stages(database: Database) -> None:
    create(database, "m")
    for _ in range(3):
        add(database, "m")

    def move(version: str, stage: str, *, archive: bool = False) -> ModelVersion:
        return database.write_now(
            lambda c: registry.transition_in(c, WS, "m", version, stage, archive_others=archive, now=3.0)
        )

    assert move("1", "production").stage == "Production"
    assert move("2", "Production", archive=True).stage == "Production"
    model = database.read_now(lambda c: registry.get_model_in(c, WS, "m"))
    assert {version.version: version.stage for version in model.latest} == {
        "1": "Archived",
        "2": "Production",
        "3": "None",
    }
    for stage, archive in (("nonsense", False), ("Archived", True)):
        with pytest.raises(BadRequest):
            move("1", stage, archive=archive)


def test_aliases_follow_their_model(database: Database) -> None:
    create(database, "m")
    add(database, "m")
    add(database, "m")
    database.write_now(lambda c: registry.set_alias_in(c, WS, "m", "champion", "1"))
    assert database.read_now(lambda c: registry.get_by_alias_in(c, WS, "m", "champion")).version == "1"
    database.write_now(lambda c: registry.set_alias_in(c, WS, "m", "champion", "2"))
    assert database.read_now(lambda c: registry.get_version_in(c, WS, "m", "2")).aliases == ["champion"]
    assert database.read_now(lambda c: registry.get_version_in(c, WS, "m", "1")).aliases == []
    database.write_now(lambda c: registry.rename_model_in(c, WS, "m", "n", 5.0))
    assert database.read_now(lambda c: registry.get_by_alias_in(c, WS, "n", "champion")).name == "n"
    database.write_now(lambda c: registry.delete_version_in(c, WS, "n", "2", 6.0))
    with pytest.raises(BadRequest, match="champion"):
        database.read_now(lambda c: registry.get_by_alias_in(c, WS, "n", "champion"))
    with pytest.raises(NotFound):
        database.write_now(lambda c: registry.set_alias_in(c, WS, "n", "champion", "2"))


def test_numbers_of_deleted_versions_are_not_used_again(database: Database) -> None:
    create(database, "m")
    add(database, "m")
    add(database, "m")
    for version in ("2", "1"):
        database.write_now(lambda c, v=version: registry.delete_version_in(c, WS, "m", v, 3.0))
    assert database.read_now(lambda c: registry.get_model_in(c, WS, "m")).latest == []
    assert add(database, "m").version == "3"
    database.write_now(lambda c: registry.delete_model_in(c, WS, "m"))
    with pytest.raises(NotFound):
        database.read_now(lambda c: registry.get_version_in(c, WS, "m", "3"))


def test_search(database: Database) -> None:
    for name in ("b", "a", "prompt"):
        create(database, name, tags={"kind": name})
    add(database, "a", now=10.0, tags={"env": "prod"})
    add(database, "a", now=11.0, run_id="other")
    add(database, "b", now=12.0, source="s3://bucket/x")
    add(database, "prompt", now=13.0, tags={"mlflow.prompt.is_prompt": "true"})
    assert find(database) == ["b/1", "a/2", "a/1"], "changed last first, no prompts"
    assert find(database, "name = 'a'", order=["version_number ASC"]) == ["a/1", "a/2"]
    assert find(database, "run_id IN ('other')") == ["a/2"]
    assert find(database, "source_path LIKE 's3://%'") == ["b/1"]
    assert find(database, "version_number > 1") == ["a/2"]
    assert find(database, "tags.env = 'prod'") == ["a/1"]
    assert find(database, "tags.`mlflow.prompt.is_prompt` = 'true'") == ["prompt/1"]
    found, more = database.read_now(
        lambda c: search_models_in(
            c, WS, filter_text="name LIKE '%'", order_by=["name DESC"], limit=2, offset=0
        )
    )
    assert ([model.name for model in found], more) == (["prompt", "b"], True)
    with pytest.raises(BadRequest):
        find(database, "run_id > 'a'")
