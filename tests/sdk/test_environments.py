"""Environments through the unmodified SDK."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.entities import BuildContext, Environment
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

pytestmark = pytest.mark.sdk

CONDA = """\
name: env
channels: [conda-forge]
dependencies:
  - python=3.11
  - pip
  - pip: [scikit-learn==1.5.2]
"""


def test_an_image_is_registered_and_read_back(ml_client: MLClient, name: str) -> None:
    made = ml_client.environments.create_or_update(
        Environment(name=name, version="1", image="ubuntu:22.04", description="d", tags={"a": "b"})
    )
    found = ml_client.environments.get(name, version="1")
    assert made.id == found.id
    assert found.id.endswith(f"/workspaces/main/environments/{name}/versions/1")
    assert (found.image, found.description, found.tags) == ("ubuntu:22.04", "d", {"a": "b"})
    assert found.creation_context.created_at is not None


def test_a_conda_file_is_kept(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    conda = tmp_path / "conda.yml"
    conda.write_text(CONDA)
    ml_client.environments.create_or_update(
        Environment(name=name, version="1", image="ubuntu:22.04", conda_file=conda)
    )
    found = ml_client.environments.get(name, version="1")
    assert found.conda_file["dependencies"][-1] == {"pip": ["scikit-learn==1.5.2"]}


def test_a_build_context_is_uploaded(ml_client: MLClient, name: str, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM python:3.11\nRUN pip install six\n")
    ml_client.environments.create_or_update(
        Environment(name=name, version="1", build=BuildContext(path=str(tmp_path / "context")))
    )
    found = ml_client.environments.get(name, version="1")
    assert found.build.dockerfile_path == "Dockerfile"
    assert "/azureml-blobstore/LocalUpload/" in found.build.path
    assert found.build.path.endswith("/context/")


def test_versions_count_up_when_the_content_changes_only(ml_client: MLClient, name: str) -> None:
    def create(image: str) -> str:
        return str(ml_client.environments.create_or_update(Environment(name=name, image=image)).version)

    assert create("ubuntu:20.04") == "1"
    assert create("ubuntu:20.04") == "1"
    assert create("ubuntu:22.04") == "2"
    assert ml_client.environments.get(name, label="latest").image == "ubuntu:22.04"


def test_a_version_can_not_be_changed(ml_client: MLClient, name: str) -> None:
    ml_client.environments.create_or_update(Environment(name=name, version="1", image="ubuntu:20.04"))
    with pytest.raises(ResourceExistsError, match="Create a new version"):
        ml_client.environments.create_or_update(Environment(name=name, version="1", image="ubuntu:22.04"))
    changed = Environment(name=name, version="1", image="ubuntu:20.04", description="new", tags={"x": "y"})
    ml_client.environments.create_or_update(changed)
    found = ml_client.environments.get(name, version="1")
    assert (found.image, found.description, found.tags) == ("ubuntu:20.04", "new", {"x": "y"})


def test_archived_versions_are_hidden_and_restored(ml_client: MLClient, name: str) -> None:
    for image in ("a:1", "a:2"):
        ml_client.environments.create_or_update(Environment(name=name, image=image))

    def versions() -> list[str]:
        return [str(item.version) for item in ml_client.environments.list(name=name)]

    assert versions() == ["2", "1"]
    ml_client.environments.archive(name, version="2")
    assert versions() == ["1"]
    assert ml_client.environments.get(name, label="latest").version == "1"
    ml_client.environments.restore(name, version="2")
    assert versions() == ["2", "1"]
    ml_client.environments.archive(name)
    assert name not in {item.name for item in ml_client.environments.list()}
    ml_client.environments.restore(name)
    assert name in {item.name for item in ml_client.environments.list()}


def test_what_is_missing_is_not_found(ml_client: MLClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError, match=name):
        ml_client.environments.get(name, version="1")


def test_reserved_and_bad_names_are_refused(ml_client: MLClient) -> None:
    with pytest.raises(HttpResponseError, match="AzureML-"):
        ml_client.environments.create_or_update(Environment(name="AzureML-mine", version="1", image="a"))
    with pytest.raises(HttpResponseError, match="letters, digits"):
        ml_client.environments.create_or_update(Environment(name="no spaces", version="1", image="a"))
