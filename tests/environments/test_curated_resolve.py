"""Every curated environment has an installable set of packages today. Asks the real package index: opt-in.

NORIBA_TEST_CURATED=1 pytest tests/environments/test_curated_resolve.py
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import msgspec
import pytest

from noriba.environments import accelerator
from noriba.environments.accelerator import cuda_packages, locked
from noriba.environments.build import detect_settings
from noriba.environments.catalogue import CuratedEnvironment, curated_environments, find_curated
from noriba.environments.plan import plan_environment
from noriba.environments.process import BuildLog, Programs
from noriba.environments.pythons import discover
from noriba.environments.resolve import Resolver
from noriba.environments.spec import BuildSettings, EnvironmentSpec
from noriba.environments.uvtool import Uv

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "NORIBA_TEST_CURATED" not in os.environ,
        reason="asks the package index for minutes; set NORIBA_TEST_CURATED=1",
    ),
]


@pytest.fixture(scope="module")
def settings() -> BuildSettings:
    found = detect_settings(BuildSettings(python_downloads=False, gpu=False))
    builds, _ = accelerator.find_cpu_builds(found.pip.find_links, found.torch_cpu_index, 5)
    # Only metadata is fetched, so a machine without any CPU build may look at the CUDA ones.
    return found if builds else msgspec.structs.replace(found, torch_build="any")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("environment", curated_environments(), ids=lambda environment: environment.name)
def test_it_resolves_on_this_python_with_wheels_only(
    environment: CuratedEnvironment, settings: BuildSettings, cache: Path, tmp_path: Path
) -> None:
    log = io.StringIO()
    uv = Uv(Programs(BuildLog(log)), cache, cache / "pythons", settings.pip)
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    interpreters = [i for i in discover() if i.minor == mine]
    plan = plan_environment(EnvironmentSpec(curated=environment.name), find_curated, settings)
    resolved = Resolver(uv, settings, interpreters, tmp_path, tmp_path).resolve(plan)
    packages = locked(resolved.lock)
    assert {"azureml-mlflow", "azure-identity", "mlflow-skinny", "pip"} <= set(packages), log.getvalue()
    if settings.torch_build == "auto":
        assert cuda_packages(resolved.lock) == []
