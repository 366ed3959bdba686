"""What images and Dockerfiles are to a node without a container runtime."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noriba.environments.context import ContextFolder
from noriba.environments.dockerfile import read_dockerfile
from noriba.environments.dockerfile_syntax import parse_dockerfile
from noriba.environments.images import ImageReference, parse_image, recognise_image

Write = Callable[[dict[str, str]], str]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("python", ImageReference("python")),
        ("python:3.11", ImageReference("python", "3.11")),
        ("docker.io/library/python:3.11", ImageReference("python", "3.11")),
        ("localhost:5000/x/y", ImageReference("localhost:5000/x/y")),
        ("localhost:5000/x/y:v1", ImageReference("localhost:5000/x/y", "v1")),
        ("a/b@sha256:00", ImageReference("a/b", "", "sha256:00")),
    ],
)
def test_image_names(image: str, reference: ImageReference) -> None:
    assert parse_image(image) == reference


@pytest.mark.parametrize(
    ("image", "python", "requirements"),
    [
        ("python:3.11-slim", "3.11", ()),
        ("python:3.9.18", "3.9", ()),
        ("python:latest", "", ()),
        ("mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest", "3.10", ()),
        ("mcr.microsoft.com/azureml/openmpi5.0-ubuntu24.04", "3.10", ()),
        ("ubuntu:22.04", "3.10", ()),
        ("debian:12", "", ()),
        ("continuumio/miniconda3", "", ()),
        ("pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime", "", ("torch==2.2.0", "torchvision", "torchaudio")),
        ("tensorflow/tensorflow:2.12.0-gpu", "", ("tensorflow==2.12.0",)),
        ("rayproject/ray:2.9.0-py310-gpu", "3.10", ("ray[default]==2.9.0",)),
        (
            "mcr.microsoft.com/aifx/acpt/stable-ubuntu2204-cu126-py310-torch280:x",
            "3.10",
            ("torch==2.8.0", "torchvision", "torchaudio", "azureml-mlflow", "azure-identity"),
        ),
    ],
)
def test_known_images(image: str, python: str, requirements: tuple[str, ...]) -> None:
    base = recognise_image(image)
    assert base is not None
    assert (base.python, base.requirements) == (python, requirements)


def test_images_of_curated_environments() -> None:
    base = recognise_image("mcr.microsoft.com/azureml/curated/sklearn-1.5:34")
    assert base is not None
    assert base.curated == "sklearn-1.5"


@pytest.mark.parametrize(
    "image", ["rocker/r-ver:4.3", "myregistry.azurecr.io/azureml/azureml_0123:latest", "evil/python:3.11", ""]
)
def test_unknown_images(image: str) -> None:
    assert recognise_image(image) is None


def plan(write: Write, dockerfile: str, files: dict[str, str] | None = None):  # type: ignore[no-untyped-def]
    root = write({"Dockerfile": dockerfile, **(files or {})})
    return read_dockerfile(dockerfile, ContextFolder(root))


def test_the_usual_dockerfile(write_context: Write) -> None:
    found = plan(
        write_context,
        """# syntax=docker/dockerfile:1
ARG PY=3.10
FROM python:${PY}-slim
# system
RUN apt-get update && apt-get install -y --no-install-recommends \\
    # compilers
    gcc git \\
    && rm -rf /var/lib/apt/lists/*
ENV OMP_NUM_THREADS=2 LANG="C.UTF-8" PATH=/opt/bin:$PATH
WORKDIR /app
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache pip install --no-cache-dir -r requirements.txt 2>&1 | tee log
RUN python -m pip install 'numpy<2' && pip install lightgbm==4.1 --extra-index-url https://x/simple
COPY . /app
RUN curl -sSL https://example.org/setup.sh | bash
CMD ["python", "train.py"]
""",
        {"requirements.txt": "pandas\n-r more.txt\n", "more.txt": "six\n", "train.py": ""},
    )
    # As for docker: more.txt was not copied yet.
    assert found.requirements.errors == ("requirements.txt: the file 'more.txt' named by -r is not there",)
    assert found.image == "python:3.10-slim"
    assert found.requirements.lines == ("pandas", "numpy<2", "lightgbm==4.1")
    assert found.requirements.options.extra_index_urls == ("https://x/simple",)
    assert found.env == {"OMP_NUM_THREADS": "2", "LANG": "C.UTF-8"}
    assert found.system_packages == ("gcc", "git")
    assert any("curl" in warning and "line 15" in warning for warning in found.warnings)


def test_copying_folders_and_files(write_context: Write) -> None:
    found = plan(
        write_context,
        """FROM ubuntu:22.04
COPY deps /tmp/deps/
ADD ["a.txt", "/x/renamed.txt"]
RUN cd /tmp/deps && pip3 install -r base.txt
RUN pip install -r /x/renamed.txt -c /tmp/deps/limits.txt
COPY pkg /src/pkg
RUN pip install /src/pkg
""",
        {"deps/base.txt": "attrs", "deps/limits.txt": "attrs<25", "a.txt": "six", "pkg/pyproject.toml": ""},
    )
    assert found.errors == ()
    assert found.requirements.lines == ("attrs", "six", "./pkg")
    assert found.requirements.options.constraints == ("attrs<25",)


def test_azure_mls_own_style(write_context: Write) -> None:
    found = plan(
        write_context,
        """FROM mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest
ENV AZUREML_CONDA_ENVIRONMENT_PATH /azureml-envs/pytorch
RUN conda create -p $AZUREML_CONDA_ENVIRONMENT_PATH \\
    python=3.9 pip=21 -c conda-forge -y && conda clean -ay
ENV PATH $AZUREML_CONDA_ENVIRONMENT_PATH/bin:$PATH
COPY env.yaml /tmp/
RUN conda env update -p $AZUREML_CONDA_ENVIRONMENT_PATH -f /tmp/env.yaml
RUN conda run -p $AZUREML_CONDA_ENVIRONMENT_PATH pip install 'azureml-mlflow' \\
                'torch>=2'
""",
        {"env.yaml": "channels: [pytorch]\ndependencies:\n- numpy=1.26\n- pip:\n  - six\n"},
    )
    assert found.errors == ()
    assert [str(dependency) for dependency in found.conda.dependencies] == [
        "python =3.9",
        "pip =21",
        "numpy =1.26",
    ]
    assert found.conda.channels == ("conda-forge", "pytorch")
    assert found.requirements.lines == ("six", "azureml-mlflow", "torch>=2")
    assert found.env == {}


def test_stages_and_heredocs(write_context: Write) -> None:
    found = plan(
        write_context,
        """FROM python:3.11 AS base
RUN pip install six
FROM node:20 AS web
RUN npm ci
FROM base
RUN <<EOF
pip install attrs
echo done
EOF
RUN ["pip", "install", "iniconfig"]
COPY --from=web /dist /dist
COPY --from=busybox:1 /bin/sh /bin/bb
""",
    )
    assert found.image == "python:3.11"
    assert found.requirements.lines == ("six", "attrs", "iniconfig")
    assert any("busybox" in warning for warning in found.warnings)
    assert not any("npm" in warning for warning in found.warnings)


def test_files_outside_of_the_context_do_not_exist(write_context: Write, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "secret.txt").write_text("six")
    found = plan(write_context, "FROM python:3.11\nCOPY ../secret.txt /r.txt\nRUN pip install -r /r.txt\n")
    assert "not there" in " ".join(found.requirements.errors)
    (tmp_path / "context" / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert not ContextFolder(str(tmp_path / "context")).exists("link.txt")


def test_a_dockerfile_without_from(write_context: Write) -> None:
    assert plan(write_context, "RUN pip install six").errors == ("the Dockerfile has no FROM",)


@given(st.text(alphabet="FROM RUNCOPYpip install\\\n#<EOF&;'\"$={}[]-x", max_size=300))
def test_any_dockerfile_is_read_without_raising(text: str) -> None:
    for instruction in parse_dockerfile(text):
        assert instruction.name
    read_dockerfile("FROM python:3.11\n" + text, ContextFolder("/nonexistent"))
