"""From a definition to a plan: pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from noriba.environments import errors
from noriba.environments.catalogue import find_curated
from noriba.environments.plan import EnvironmentPlan, plan_environment
from noriba.environments.spec import (
    BuildContext,
    BuildSettings,
    BuiltEnvironment,
    EnvironmentSpec,
    PipOptions,
)

SETTINGS = BuildSettings(platform="linux-64", default_python="3.11")
CONDA = """
name: train
channels: [conda-forge]
dependencies:
- python=3.10
- pip=21
- pip:
  - scikit-learn==1.5.0
  - --extra-index-url https://extra/simple
variables: {A: b}
"""


def plan(settings: BuildSettings = SETTINGS, **fields: object) -> EnvironmentPlan:
    return plan_environment(EnvironmentSpec(**fields), find_curated, settings)  # type: ignore[arg-type]


def test_a_conda_file_with_pip_packages_only_needs_no_conda() -> None:
    found = plan(
        conda_file=CONDA,
        image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest",
        name="e",
        version="3",
    )
    assert found.problems == ()
    assert found.python == "==3.10.*"
    assert found.requirements == ("scikit-learn==1.5.0", "pip", "setuptools<82", "wheel")
    assert found.options.extra_index_urls == ("https://extra/simple",)
    assert found.conda is None
    assert found.env == {"A": "b"}
    assert any("is not used" in note for note in found.notes)
    assert any("'pip =21' -> pip" in note for note in found.notes)


def test_conda_packages_are_planned_both_ways() -> None:
    found = plan(
        conda_file="channels: [pytorch, nodefaults]\ndependencies: [python=3.10, pytorch=2.1, r-base, pip: [six]]"
    )
    assert found.conda is not None
    assert found.conda.channels == ("pytorch",)
    assert [m.requirement for m in found.conda.mapping] == ["torch==2.1.*", None]
    assert found.requirements[0] == "six"


def test_the_key_is_of_content_only() -> None:
    key = plan(conda_file=CONDA).key()
    assert len(key) == 32
    assert plan(conda_file=CONDA, name="other", version="9", labels={"a": "b"}).key() == key
    assert plan(conda_file=CONDA, image="whatever:1").key() == key
    assert plan(conda_file=CONDA.replace("name: train", "name: serve")).key() == key
    assert plan(conda_file="# comment\n" + CONDA.replace("==1.5.0", "==1.5.0   ")).key() == key


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ((CONDA.replace("1.5.0", "1.5.1"), SETTINGS), "packages"),
        ((CONDA.replace("3.10", "3.11"), SETTINGS), "python"),
        ((CONDA.replace("extra/", "other/"), SETTINGS), "package indexes"),
        ((CONDA.replace("A: b", "A: c"), SETTINGS), "variables"),
        ((CONDA.replace("- pip=21", "- numpy"), SETTINGS), "conda packages"),
        ((CONDA, msgspec.structs.replace(SETTINGS, platform="linux-aarch64")), "platform"),
        ((CONDA, msgspec.structs.replace(SETTINGS, gpu=True)), "rules"),
        (
            (CONDA, msgspec.structs.replace(SETTINGS, pip=PipOptions(constraints=("numpy<2",)))),
            "package indexes",
        ),
    ],
)
def test_what_matters_changes_the_key_and_is_named(change: tuple[str, BuildSettings], part: str) -> None:
    before, after = plan(conda_file=CONDA), plan(change[1], conda_file=change[0])
    assert before.key() != after.key()
    differing = {name for name, value in after.key_parts().items() if before.key_parts()[name] != value}
    assert part in differing


def test_how_packages_are_fetched_does_not_change_the_key() -> None:
    slow = msgspec.structs.replace(
        SETTINGS, pip=PipOptions(timeout_s=99, cert="/ca.pem", proxy="http://p", trusted_hosts=("h",))
    )
    assert plan(slow, conda_file=CONDA).key() == plan(conda_file=CONDA).key()
    assert (
        plan(msgspec.structs.replace(SETTINGS, conda_timeout_s=1.0, bytecode="off"), conda_file=CONDA).key()
        == plan(conda_file=CONDA).key()
    )


def test_image_only() -> None:
    found = plan(image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest")
    assert found.python == "==3.10.*"
    assert found.requirements[:2] == ("azureml-mlflow", "azure-identity")
    found = plan(image="ubuntu:22.04")
    assert any("programs of the image" in warning for warning in found.warnings)


def test_an_image_of_a_curated_environment_is_that_environment() -> None:
    found = plan(image="mcr.microsoft.com/azureml/curated/sklearn-1.5:34")
    assert found.curated == "sklearn-1.5"
    assert found.key() == plan(curated="sklearn-1.5").key()
    assert found.wheels_only
    for image in (
        "mcr.microsoft.com/azureml/curated/minimal-ubuntu22.04-py39-cpu-inference:1",
        "mcr.microsoft.com/azureml/curated/sklearn-1.0-ubuntu20.04-py38-cpu:28",
    ):
        assert plan(image=image).curated


def test_unknown_things_are_problems_with_a_way_out() -> None:
    found = plan(image="rocker/r-ver:4.3")
    assert [p.code for p in found.problems] == [errors.IMAGE_UNAVAILABLE]
    assert "container_runtime" in found.problems[0].message
    found = plan(curated="nope")
    assert [p.code for p in found.problems] == [errors.INVALID]
    found = plan(image="mcr.microsoft.com/azureml/curated/nope:1")
    assert [p.code for p in found.problems] == [errors.IMAGE_UNAVAILABLE]


def test_local_paths_in_a_conda_file_are_refused() -> None:
    found = plan(conda_file="dependencies: [pip: ['./package', '-r requirements.txt']]")
    assert {p.code for p in found.problems} == {errors.INVALID}
    assert "./package" in " ".join(p.message for p in found.problems)
    assert "requirements.txt" in " ".join(p.message for p in found.problems)


def test_with_a_container_runtime_images_are_containers() -> None:
    podman = msgspec.structs.replace(SETTINGS, container_runtime="podman")
    found = plan(podman, image="rocker/r-ver:4.3")
    assert found.container is not None
    assert (found.container.runtime, found.container.image) == ("podman", "rocker/r-ver:4.3")
    found = plan(podman, image="x:1", conda_file=CONDA)
    assert found.container is not None
    assert found.container.conda_file == CONDA
    assert plan(podman, curated="sklearn-1.5").container is None
    assert plan(podman, conda_file=CONDA).container is None


def test_a_build_context(write_context: Callable[[dict[str, str]], str]) -> None:
    root = write_context(
        {"docker/Dockerfile": "FROM python:3.11\nCOPY r.txt .\nRUN pip install -r r.txt\n", "r.txt": "six"}
    )
    found = plan(build=BuildContext(root, "docker/Dockerfile"))
    assert found.problems == ()
    assert found.python == "==3.11.*"
    assert found.requirements[0] == "six"
    assert found.context is None
    missing = plan(build=BuildContext(root))
    assert missing.problems[0].code == errors.INVALID
    assert "dockerfile_path" in missing.problems[0].message


def test_a_local_package_of_a_context_enters_the_key(write_context: Callable[[dict[str, str]], str]) -> None:
    files = {
        "Dockerfile": "FROM python:3.11\nCOPY . /src\nRUN pip install /src\n",
        "pyproject.toml": "",
        "m.py": "a = 1",
    }
    build = BuildContext(write_context(files))
    first = plan(build=build)
    assert first.requirements[0] == "."
    assert first.context == build.path
    assert plan(build=build).key() == first.key()
    write_context({"m.py": "a = 2"})
    assert plan(build=build).key() != first.key()


def test_a_dockerfile_on_a_curated_image_adds_to_it(write_context: Callable[[dict[str, str]], str]) -> None:
    root = write_context(
        {
            "Dockerfile": "FROM mcr.microsoft.com/azureml/curated/sklearn-1.5:1\nRUN pip install pandas==2.0.3 shap\n"
        }
    )
    found = plan(build=BuildContext(root))
    assert "pandas==2.0.3" in found.requirements
    assert not any(line.startswith("pandas~") for line in found.requirements)
    assert any(line.startswith("scikit-learn~=1.5") for line in found.requirements)
    assert len(found.variants) > 1


def test_nothing_given_is_a_plain_python_with_a_warning() -> None:
    found = plan()
    assert found.problems == ()
    assert found.warnings


def test_structures_cross_process_borders() -> None:
    for value, kind in (
        (SETTINGS, BuildSettings),
        (EnvironmentSpec(build=BuildContext("/x"), curated="a"), EnvironmentSpec),
    ):
        assert msgspec.json.decode(msgspec.json.encode(value), type=kind) == value
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind) == value
    built = BuiltEnvironment(key="k", id="k-py311", path="/a", python="/a/bin/python", bin_dir="/a/bin")  # type: ignore[arg-type]
    again = BuiltEnvironment.from_json(built.to_json())
    assert str(again.python) == "/a/bin/python"
    assert again.bin_dir.name == "bin"


def test_the_default_conda_setting_can_force_or_forbid_channels() -> None:
    always = msgspec.structs.replace(SETTINGS, conda="always")
    found = plan(always, conda_file=CONDA)
    assert found.conda is not None
    assert [d.name for d in found.conda.dependencies] == ["python", "pip"]
