"""Components through the unmodified SDK."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.ai.ml import MLClient, command, load_component
from azure.ai.ml.entities import CommandComponent, Environment
from azure.core.exceptions import ResourceExistsError

pytestmark = pytest.mark.sdk

YAML = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandComponent.schema.json
type: command
name: {name}
version: "{version}"
display_name: Train
description: {description}
tags: {{team: vision}}
inputs:
  data: {{type: uri_folder}}
  rate: {{type: number, default: 0.1, min: 0.0, max: 1.0}}
  note: {{type: string, optional: true}}
outputs:
  model: {{type: mlflow_model}}
code: ./src
environment: {{image: "python:3.11"}}
command: >-
  python run.py --data ${{{{inputs.data}}}} --rate ${{{{inputs.rate}}}} $[[--note ${{{{inputs.note}}}}]]
  --out ${{{{outputs.model}}}}{more}
"""


def component(
    tmp_path: Path, name: str, version: str = "1", description: str = "d", more: str = ""
) -> CommandComponent:
    (tmp_path / "src").mkdir(exist_ok=True)
    (tmp_path / "src" / "run.py").write_text("print('hello')\n")
    file = tmp_path / "component.yml"
    file.write_text(YAML.format(name=name, version=version, description=description, more=more))
    loaded = load_component(source=file)
    assert isinstance(loaded, CommandComponent)
    return loaded


def test_a_yaml_component_is_registered_and_read_back(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    ml_client.components.create_or_update(component(tmp_path, name))
    found = ml_client.components.get(name, version="1")
    assert (found.name, found.version, found.display_name) == (name, "1", "Train")
    assert found.description == "d"
    assert found.tags == {"team": "vision"}
    assert "$[[--note ${{inputs.note}}]]" in found.command
    assert found.inputs["rate"].default == 0.1
    assert found.outputs["model"].type == "mlflow_model"
    assert "/codes/" in found.code
    assert "/environments/CliV2AnonymousEnvironment/" in found.environment


def test_the_default_version_is_the_latest(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    for version in ("1", "2"):
        ml_client.components.create_or_update(component(tmp_path, name, version))
    assert ml_client.components.get(name).version == "2"
    assert ml_client.components.get(name, label="latest").version == "2"
    assert [item.version for item in ml_client.components.list(name=name)] == ["2", "1"]


def test_versions_count_up_unless_nothing_changed(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    def create(more: str = "", **options: bool) -> str:
        loaded = component(tmp_path, name, more=more)
        loaded.version = None
        return str(ml_client.components.create_or_update(loaded, **options).version)

    assert create() == "1"
    assert create(" --more") == "2"
    assert create(" --more", skip_if_no_change=True) == "2"
    assert create(" --less", skip_if_no_change=True) == "3"


def test_what_a_version_does_can_not_be_changed(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    ml_client.components.create_or_update(component(tmp_path, name))
    ml_client.components.create_or_update(component(tmp_path, name, description="better words"))
    assert ml_client.components.get(name, version="1").description == "better words"
    with pytest.raises(ResourceExistsError, match="Create a new version"):
        ml_client.components.create_or_update(component(tmp_path, name, more=" --changed"))


def test_archived_components_are_hidden(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    ml_client.components.create_or_update(component(tmp_path, name))
    ml_client.components.archive(name, version="1")
    assert not list(ml_client.components.list(name=name))
    ml_client.components.restore(name, version="1")
    ml_client.components.archive(name)
    assert name not in {item.name for item in ml_client.components.list()}
    ml_client.components.restore(name)
    assert name in {item.name for item in ml_client.components.list()}


def test_anonymous_components_are_made_once_and_not_listed(ml_client: MLClient, tmp_path: Path) -> None:
    def create() -> CommandComponent:
        node = command(
            command="echo ${{inputs.x}}", environment=Environment(image="python:3.11"), inputs={"x": 1}
        )
        return ml_client.components.create_or_update(node.component, is_anonymous=True)

    first, second = create(), create()
    assert first.id == second.id
    assert "/components/azureml_anonymous/versions/" in first.id
    assert "azureml_anonymous" not in {item.name for item in ml_client.components.list()}


def test_a_component_is_downloaded_with_its_code(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    ml_client.components.create_or_update(component(tmp_path, name))
    ml_client.components.download(name, tmp_path / "down", version="1")
    assert (tmp_path / "down").exists()
    assert [path.read_text() for path in (tmp_path / "down").rglob("run.py")] == ["print('hello')\n"]
