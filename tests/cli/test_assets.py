"""``noriba environment|data|model|component|code|datastore|workspace|registry``."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Noriba, result

pytestmark = pytest.mark.sdk


@pytest.fixture
def name() -> str:
    """A name of the test's own: the server is shared."""
    return f"cli-{uuid.uuid4().hex[:8]}"


def write(file: Path, **fields: Any) -> str:
    file.write_text(yaml.safe_dump(fields))
    return file.name


def versions(noriba: Noriba, kind: str, name: str, *flags: str) -> list[str]:
    return result(noriba(kind, "list", "-n", name, *flags, "--query", "[].version"))  # type: ignore[no-any-return]


def test_environment(noriba: Noriba, tmp_path: Path, name: str) -> None:
    (tmp_path / "conda.yml").write_text("name: x\ndependencies:\n- python=3.10\n- pip:\n  - numpy\n")
    write(tmp_path / "env.yml", name=name, version="1", image="ubuntu:22.04", conda_file="conda.yml")
    created = result(noriba("environment", "create", "-f", "env.yml", "--tags", "a=b", "c=d"))
    assert (created["name"], created["version"], created["image"]) == (name, "1", "ubuntu:22.04")
    assert created["conda_file"]["dependencies"][0] == "python=3.10"
    assert created["tags"] == {"a": "b", "c": "d"}

    flags = ["--image", "python:3.11", "--conda-file", "conda.yml", "--description", "by flags"]
    by_flags = result(noriba("environment", "create", "-n", name, "-v", "2", *flags))
    assert (by_flags["version"], by_flags["description"]) == ("2", "by flags")
    assert versions(noriba, "environment", name) == ["2", "1"]
    assert result(noriba("environment", "show", "-n", name))["version"] == "2"
    assert result(noriba("environment", "show", "-n", name, "-l", "latest"))["version"] == "2"
    assert result(noriba("environment", "show", "-n", name, "-v", "1"))["image"] == "ubuntu:22.04"
    assert name in result(noriba("environment", "list", "--query", "[].name"))

    nothing = noriba("environment", "create", "-n", name)
    assert nothing.returncode == 1
    assert "Docker image or Dockerfile is required" in nothing.stderr
    unknown = noriba("environment", "show", "-n", "no-such-environment")
    assert unknown.returncode == 1
    assert "no-such-environment" in unknown.stderr


def test_data(noriba: Noriba, tmp_path: Path, name: str) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n")
    created = result(
        noriba("data", "create", "-n", name, "-p", "rows.csv", "-t", "uri_file", "--set", "tags.x=1")
    )
    assert (created["version"], created["type"]) == ("1", "uri_file")
    assert created["path"].startswith("azureml://")
    assert created["path"].endswith("/rows.csv")
    assert created["tags"] == {"x": "1"}
    write(tmp_path / "data.yml", name=name, type="uri_file", path="rows.csv")
    assert result(noriba("data", "create", "-f", "data.yml"))["version"] == "2"

    updated = result(noriba("data", "update", "-n", name, "-v", "1", "--set", "tags.y=2", "description=told"))
    assert updated["tags"] == {"x": "1", "y": "2"}
    assert updated["description"] == "told"
    frozen = noriba("data", "update", "-n", name, "--set", "path=other")
    assert frozen.returncode == 2

    assert noriba("data", "archive", "-n", name, "-v", "2").returncode == 0
    assert versions(noriba, "data", name) == ["1"]
    assert versions(noriba, "data", name, "--archived-only") == ["2"]
    assert versions(noriba, "data", name, "--include-archived") == ["2", "1"]
    assert noriba("data", "restore", "-n", name, "-v", "2").returncode == 0
    assert noriba("data", "archive", "-n", name).returncode == 0
    assert name not in result(noriba("data", "list", "--query", "[].name"))
    assert noriba("data", "restore", "-n", name).returncode == 0
    assert name in result(noriba("data", "list", "--query", "[].name"))

    missing = noriba("data", "create", "-n", name, "-p", "nothing.csv", "-t", "uri_file")
    assert missing.returncode == 1
    assert "nothing.csv" in missing.stderr


def test_model(noriba: Noriba, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "weights" / "deep"
    folder.mkdir(parents=True)
    (folder / "a b é.bin").write_bytes(b"\x00\x01")
    (tmp_path / "weights" / "empty").write_bytes(b"")
    created = result(
        noriba("model", "create", "-n", name, "-p", "weights", "-t", "custom_model", "--stage", "Dev")
    )
    assert (created["version"], created["type"], created["stage"]) == ("1", "custom_model", "Dev")
    assert noriba("model", "download", "-n", name, "-v", "1", "-p", "got").returncode == 0
    assert (tmp_path / "got" / name / "weights/deep/a b é.bin").read_bytes() == b"\x00\x01"
    assert (tmp_path / "got" / name / "weights/empty").read_bytes() == b""

    single = result(
        noriba("model", "create", "-n", name, "-p", "weights/deep/a b é.bin", "-t", "custom_model")
    )
    assert single["version"] == "2"
    assert noriba("model", "download", "-n", name, "-p", "file").returncode == 0
    assert (tmp_path / "file" / name / "a b é.bin").read_bytes() == b"\x00\x01"
    assert result(noriba("model", "update", "-n", name, "--set", "stage=Production"))["stage"] == "Production"
    assert versions(noriba, "model", name, "--stage", "Production") == ["2"]


def test_component_and_code(noriba: Noriba, tmp_path: Path, name: str) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "run.py").write_text("print(1)\n")
    component = name.replace("-", "_")
    write(
        tmp_path / "component.yml",
        name=component,
        version="1",
        type="command",
        command="python run.py",
        code="src",
        environment="azureml://registries/azureml/environments/sklearn-1.5/labels/latest",
    )
    created = result(noriba("component", "create", "-f", "component.yml", "--set", "display_name=Shown"))
    assert (created["name"], created["version"], created["display_name"]) == (component, "1", "Shown")
    assert result(noriba("component", "show", "-n", component))["command"] == "python run.py"
    code = created["code"].split("/codes/")[1].split("/")[0]
    assert result(noriba("code", "show", "-n", code, "-v", "1"))["path"].startswith("https://")


def test_datastore(noriba: Noriba, tmp_path: Path, name: str) -> None:
    listed = result(noriba("datastore", "list", "--query", "[].name"))
    assert {"workspaceblobstore", "workspaceartifactstore"} <= set(listed)
    table = noriba("datastore", "list", "-o", "table").stdout
    assert [line.split()[-1] for line in table.splitlines() if line.startswith("workspaceblobstore")] == [
        "yes"
    ]
    store = name.replace("-", "_")
    write(
        tmp_path / "store.yml",
        name=store,
        type="azure_blob",
        account_name="account",
        container_name="container",
        credentials={"account_key": "c2VjcmV0"},
    )
    created = result(noriba("datastore", "create", "-f", "store.yml"))
    assert (created["name"], created["account_name"]) == (store, "account")
    shown = noriba("datastore", "show", "-n", store)
    assert "c2VjcmV0" not in shown.stdout, "secrets are not shown"
    assert result(shown)["credentials"]["type"] == "account_key"
    assert noriba("datastore", "delete", "-n", store, "--yes").returncode == 0
    assert noriba("datastore", "show", "-n", store).returncode == 1


def test_workspace(noriba: Noriba, name: str) -> None:
    created = result(noriba("workspace", "create", "-n", name, "--description", "told", "--tags", "a=b"))
    assert (created["name"], created["description"], created["tags"]) == (name, "told", {"a": "b"})
    assert name in result(noriba("workspace", "list", "--query", "[].name"))
    assert result(noriba("workspace", "show", "-n", name))["name"] == name
    assert (
        result(noriba("workspace", "update", "-n", name, "--display-name", "Shown"))["display_name"]
        == "Shown"
    )
    # Work in it, then without it.
    assert result(noriba("job", "list", "-w", name)) == []
    assert noriba("workspace", "delete", "-n", name, "--yes").returncode == 0
    gone = noriba("job", "list", "-w", name)
    assert gone.returncode == 1
    assert f"There is no workspace '{name}'" in gone.stderr


def test_registry(noriba: Noriba) -> None:
    assert "azureml" in result(noriba("registry", "list", "--query", "[].name"))
    assert result(noriba("registry", "show", "-n", "azureml"))["name"] == "azureml"
    curated = result(noriba("environment", "list", "--registry-name", "azureml", "--query", "[].name"))
    assert "sklearn-1.5" in curated
    shown = result(noriba("environment", "show", "-n", "sklearn-1.5", "--registry-name", "azureml"))
    assert shown["id"].startswith("azureml://registries/azureml/environments/sklearn-1.5/versions/")
    unknown = noriba("environment", "list", "--registry-name", "nowhere")
    assert unknown.returncode == 1
    assert "nowhere" in unknown.stderr
