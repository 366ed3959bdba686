"""Conda environment files in pip's words (issue: environments; ``conda``)."""

from __future__ import annotations

import pytest
import rattler
from hypothesis import assume, given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from noriba.environments.conda import (
    CondaDependency,
    channel_url,
    map_dependency,
    parse_match_spec,
    python_specifier,
    read_conda_file,
    to_pep440,
)

releases = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
operators = st.sampled_from(["", "=", "==", "!=", ">=", "<=", ">", "<", "~="])
clauses = st.builds(
    lambda operator, release, star: f"{operator}{release}{star}",
    operators,
    releases,
    st.sampled_from(["", "", "", ".*"]),
)
specs = st.lists(clauses, min_size=1, max_size=3).map(",".join)


def conda_matches(spec: str, version: str) -> bool:
    return bool(rattler.VersionSpec(spec).matches(rattler.Version(version)))


@given(specs, releases)
def test_translated_specs_admit_what_conda_admits(spec: str, version: str) -> None:
    # Conda's "~=1.2.*", ">1.2.*" have no agreed meaning: its own implementations differ.
    assume(
        not any(clause.startswith(("~=", ">", "<")) and clause.endswith("*") for clause in spec.split(","))
    )
    # "~=1" is refused by conda's library, "==1.2.*" is read as "=1.2" by conda and as an error by others.
    assume(not any(clause.startswith("~=") and "." not in clause for clause in spec.split(",")))
    assume(not any(clause.startswith("==") and clause.endswith("*") for clause in spec.split(",")))
    translated = to_pep440(spec)
    assert SpecifierSet(translated.specifier).contains(version) == conda_matches(spec, version)


@given(st.lists(specs, min_size=2, max_size=3), releases)
def test_of_alternatives_only_admissible_versions_are_left(alternatives: list[str], version: str) -> None:
    assume(not any(c.endswith("*") or c.startswith("~=") for spec in alternatives for c in spec.split(",")))
    whole = "|".join(alternatives)
    translated = to_pep440(whole)
    assert translated.note
    if SpecifierSet(translated.specifier).contains(version):
        assert conda_matches(whole, version)


@given(releases)
def test_an_exact_version_matches_itself(version: str) -> None:
    for spec in (
        version,
        f"=={version}",
        f"={version}",
        f"{version}.*",
        f">={version}",
        f"<={version}",
        f"~={version}.0",
    ):
        assert SpecifierSet(to_pep440(spec).specifier).contains(Version(version))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("=1.2", "==1.2.*"),
        ("==1.2", "==1.2"),
        ("1.2", "==1.2"),
        ("1.2.*", "==1.2.*"),
        ("1.2*", "==1.2.*"),
        ("=1.2.*", "==1.2.*"),
        (">=1.2,<2", ">=1.2,<2"),
        (">=1.2.*", ">=1.2"),
        ("!=1.2.*", "!=1.2.*"),
        ("~=1.5.3", "~=1.5.3"),
        ("~=1", ">=1,==1.*"),
        ("*", ""),
        ("", ""),
        ("=1.2rc1", "==1.2rc1"),
        ("1.2|1.3|1.1", "==1.3"),
        (">=1,<2|>=3", ">=3"),
    ],
)
def test_version_specs(spec: str, expected: str) -> None:
    assert to_pep440(spec).specifier == expected


@pytest.mark.parametrize("spec", ["^1.2.*$", "9e", "(1.2|1.3),<2", "=>1.2"])
def test_version_specs_that_pip_cannot_say(spec: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        to_pep440(spec)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("numpy", CondaDependency("numpy")),
        ("numpy=1.26", CondaDependency("numpy", "=1.26")),
        ("numpy = 1.26", CondaDependency("numpy", "=1.26")),
        ("numpy==1.26", CondaDependency("numpy", "==1.26")),
        ("numpy 1.26.*", CondaDependency("numpy", "1.26.*")),
        ("numpy 1.26.* py310_0", CondaDependency("numpy", "1.26.*", "py310_0")),
        ("numpy=1.26=py310_0", CondaDependency("numpy", "=1.26", "py310_0")),
        ("pytorch=2.1.*=cuda*", CondaDependency("pytorch", "=2.1.*", "cuda*")),
        ("numpy >=1.20, <2", CondaDependency("numpy", ">=1.20,<2")),
        ("numpy>=1.20", CondaDependency("numpy", ">=1.20")),
        ("conda-forge::numpy=1.26", CondaDependency("numpy", "=1.26", "", "conda-forge")),
        ("numpy[version='>=1.2,<3', build=py*]", CondaDependency("numpy", ">=1.2,<3", "py*")),
        ("_openmp_mutex=4.5=1_gnu", CondaDependency("_openmp_mutex", "=4.5", "1_gnu")),
        ("PyYAML", CondaDependency("pyyaml")),
        ("python=3.10 # the interpreter", CondaDependency("python", "=3.10")),
    ],
)
def test_match_specs(text: str, expected: CondaDependency) -> None:
    assert parse_match_spec(text) == expected
    rattler.MatchSpec(expected.match_spec())  # the form that is given to the solver is one it reads


def test_a_dependency_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no package name"):
        parse_match_spec("=1.2")


@pytest.mark.parametrize(
    ("text", "requirement"),
    [
        ("pytorch=2.1", "torch==2.1.*"),
        ("py-xgboost>=1.7", "xgboost>=1.7"),
        ("matplotlib-base", "matplotlib"),
        ("scikit-learn=1.5", "scikit-learn==1.5.*"),
        ("tensorflow-gpu=2.12", "tensorflow==2.12.*"),
        ("opencv", "opencv-python-headless"),
        ("ruamel.yaml", "ruamel-yaml"),
        ("ray-default=2.9", "ray[default]==2.9.*"),
        ("pip=20.2", "pip"),
        ("setuptools=65", "setuptools==65.*"),
    ],
)
def test_packages_known_to_pypi(text: str, requirement: str) -> None:
    mapping = map_dependency(parse_match_spec(text))
    assert mapping.requirement == requirement
    Requirement(requirement)
    assert text.split("=")[0].split(">")[0] in mapping.note


@pytest.mark.parametrize(
    "text",
    ["cudatoolkit=11.3", "pytorch-cuda=11.7", "_openmp_mutex=4.5=1_gnu", "libcublas", "cpuonly", "mkl"],
)
def test_packages_that_wheels_make_unnecessary(text: str) -> None:
    mapping = map_dependency(parse_match_spec(text))
    assert mapping.requirement is None
    assert mapping.dropped
    assert "left out" in mapping.note


@pytest.mark.parametrize("text", ["r-base", "r-ggplot2=3", "bioconductor-limma", "gdal", "numpy=^1"])
def test_packages_that_cannot_be_had(text: str) -> None:
    mapping = map_dependency(parse_match_spec(text))
    assert mapping.requirement is None
    assert mapping.unprovidable


def test_programs_are_those_of_the_node() -> None:
    assert map_dependency(CondaDependency("openjdk", "=8")).program == "java"


def test_reading_a_file() -> None:
    file = read_conda_file(
        """
name: train
channels: [pytorch, conda-forge]
dependencies:
  - python=3.8
  - pip
  - numpy
  - pip:
    - azureml-mlflow
    - --extra-index-url https://example.org/simple
variables:
  OMP_NUM_THREADS: 2
"""
    )
    assert file.channels == ("pytorch", "conda-forge")
    assert [d.name for d in file.dependencies] == ["python", "pip", "numpy"]
    assert file.pip == ("azureml-mlflow", "--extra-index-url https://example.org/simple")
    assert file.variables == {"OMP_NUM_THREADS": "2"}
    assert python_specifier(file.dependencies) == "==3.8.*"
    assert file.errors == ()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("dependencies: [a: [", "not valid YAML"),
        ("- numpy", "must be a mapping"),
        ("dependencies: numpy", "must be a list"),
        ("dependencies: [{npm: [x]}]", "neither a package nor"),
        ("dependencies: ['=1.2']", "no package name"),
    ],
)
def test_files_that_are_wrong(text: str, part: str) -> None:
    assert part in " ".join(read_conda_file(text).errors)


@pytest.mark.parametrize(
    ("channel", "url"),
    [
        ("conda-forge", "https://conda.anaconda.org/conda-forge"),
        ("defaults", "https://repo.anaconda.com/pkgs/main"),
        ("https://example.org/ch/", "https://example.org/ch"),
        ("file:///srv/channel", "file:///srv/channel"),
        ("/srv/channel", "file:///srv/channel"),
    ],
)
def test_channel_urls(channel: str, url: str) -> None:
    assert channel_url(channel) == url
