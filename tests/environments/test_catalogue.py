"""The curated environments: names, versions, promises."""

from __future__ import annotations

import re

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from noriba.environments.catalogue import curated_environments, find_curated
from noriba.environments.conda import read_conda_file
from noriba.environments.requirements import name_of, parse

ASKED = [
    "sklearn-1.5", "sklearn-1.1", "sklearn-1.0", "sklearn-0.24", "lightgbm-3.3", "acpt-pytorch-2.8-cuda12.6",
    "acpt-pytorch-2.2-cuda12.1", "acpt-pytorch-1.13-cuda11.7", "tensorflow-2.16-cuda12", "tensorflow-2.12-cuda11",
    "responsibleai-tabular", "responsibleai-ubuntu20.04-py38-cpu", "responsibleai-vision", "ai-ml-automl", "automl-gpu",
    "python-sdk-v2", "model-management", "acft-hf-nlp-gpu", "minimal-ubuntu22.04-py39-cpu-inference",
    "AzureML-sklearn-0.24-ubuntu18.04-py37-cpu", "AzureML-sklearn-1.0-ubuntu20.04-py38-cpu",
    "AzureML-lightgbm-3.2-ubuntu18.04-py37-cpu", "AzureML-pytorch-1.9-ubuntu18.04-py37-cuda11-gpu",
    "AzureML-pytorch-1.10-ubuntu18.04-py38-cuda11-gpu", "AzureML-ACPT-pytorch-1.13-py38-cuda11.7-gpu",
    "AzureML-tensorflow-2.4-ubuntu18.04-py37-cuda11-gpu", "AzureML-tensorflow-2.7-ubuntu20.04-py38-cuda11-gpu",
    "AzureML-minimal-ubuntu18.04-py37-cpu-inference", "AzureML-responsibleai-0.20-ubuntu20.04-py38-cpu", "AzureML-AutoML",
    "AzureML-ai-ml-automl",
]  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_names_of_public_examples_are_known_in_any_case(name: str) -> None:
    found = find_curated(name)
    assert found is not None
    assert find_curated(name.upper(), "3") is found


def test_versions() -> None:
    found = find_curated("sklearn-1.5")
    assert found is not None
    assert found.versions[0] == "1"
    assert found.latest == found.versions[-1]
    for version in ("1", "54", "99999", "latest", "", None):
        assert find_curated("sklearn-1.5", version) is found
    for version in ("0", "-1", "1.0", "abc", "latest2", "1 "):
        assert find_curated("sklearn-1.5", version) is None
    assert find_curated("sklearn-9.9") is None


def test_sklearn_keeps_what_its_name_promises() -> None:
    found = find_curated("sklearn-1.5")
    assert found is not None
    assert found.python == "3.10"
    wanted = {name_of(line): line for line in found.requirements}
    assert wanted["scikit-learn"] == "scikit-learn~=1.5.0"
    assert wanted["pandas"] == "pandas~=1.5.3"
    assert wanted["numpy"].startswith("numpy~=1.2")
    assert {"azureml-mlflow", "azureml-core", "azure-identity"} <= set(wanted)


@pytest.mark.parametrize("environment", curated_environments(), ids=lambda e: e.name)
def test_every_environment_is_well_formed(environment) -> None:  # type: ignore[no-untyped-def]
    assert re.fullmatch(r"3\.\d+", environment.python)
    assert environment.description.endswith(".")
    assert environment.image.startswith("mcr.microsoft.com/azureml/curated/")
    assert {"azureml-mlflow", "azure-identity"} <= set(environment.requirements)
    for variant in environment.variants:
        for line in (*variant.requirements, *variant.overrides):
            assert parse(line) is not None, line
        names = [name_of(line) for line in variant.requirements]
        assert len(names) == len(set(names))
    assert any(
        SpecifierSet(v.python if not v.python[0].isdigit() else f"=={v.python}.*").contains("3.11.7")
        for v in environment.variants
    ), "an environment must be installable on Python 3.11"
    file = read_conda_file(environment.conda_file)
    assert file.errors == ()
    assert file.pip == environment.requirements
    assert yaml.safe_load(environment.conda_file)["name"] == environment.name


def test_names_are_unique() -> None:
    names = [environment.name.lower() for environment in curated_environments()]
    assert len(names) == len(set(names))
    assert len(names) >= 30
