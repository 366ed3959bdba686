"""Conda packages from a channel in reach, and from PyPI where none is."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from noriba.environments import containers, errors
from noriba.environments.catalogue import find_curated
from noriba.environments.errors import EnvironmentBuildError
from noriba.environments.plan import ContainerPlan, plan_environment
from noriba.environments.process import BuildLog, Programs
from noriba.environments.spec import BuiltEnvironment, EnvironmentSpec
from noriba.environments.store import EnvironmentStore

UNREACHABLE = "http://127.0.0.1:9/channel"


def ensure(store: EnvironmentStore, conda_file: str) -> tuple[BuiltEnvironment, str]:
    log = io.StringIO()
    plan = plan_environment(EnvironmentSpec(name="c", conda_file=conda_file), find_curated, store.settings)
    return store.ensure(plan, log), log.getvalue()


def run(built: BuiltEnvironment, program: str) -> str:
    env = {"PATH": f"{built.bin_dir}:/usr/bin:/bin", **built.env}
    return subprocess.run(
        [built.bin_dir / program], env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_packages_of_a_channel_with_pip_packages_on_top(store: EnvironmentStore, channel: Path) -> None:
    built, log = ensure(
        store,
        f"channels: [file://{channel}]\ndependencies:\n- python\n- conda-hello=1.2\n- where-am-i\n- pip:\n  - greeter\n",
    )
    assert built.id.endswith("-conda")
    assert built.env["CONDA_PREFIX"] == str(built.path)
    assert run(built, "conda-hello") == f"conda says hello from {built.path}"
    assert run(built, "greet") == f"good day {built.path}"
    assert (built.path / "etc" / "where").read_text() == f"{built.path}/etc\n"
    assert "solved 3 conda packages" in log
    assert "pip packages: " in log
    again, log = ensure(
        store,
        f"channels: [file://{channel}]\ndependencies:\n- where-am-i\n- conda-hello=1.2\n- python\n- pip:\n  - greeter\n",
    )
    assert again.cache_hit


def test_a_channel_in_front_of_a_package_is_asked_too(
    store: EnvironmentStore, channel: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "noarch"
    other.mkdir(parents=True)
    (other / "repodata.json").write_text(
        '{"info": {"subdir": "noarch"}, "packages": {}, "packages.conda": {}}'
    )
    built, _ = ensure(
        store, f"channels: ['file://{other.parent}']\ndependencies:\n- 'file://{channel}::where-am-i'\n"
    )
    assert (built.path / "etc" / "where").exists()


def test_what_a_channel_does_not_have_is_named(store: EnvironmentStore, channel: Path) -> None:
    with pytest.raises(EnvironmentBuildError) as caught:
        ensure(store, f"channels: [file://{channel}]\ndependencies: [python, conda-hello=9]\n")
    assert caught.value.code == errors.PACKAGE_NOT_FOUND
    assert "conda-hello" in caught.value.message
    assert not list((store.root / "staging").iterdir())


def test_without_a_channel_packages_come_from_pypi(store: EnvironmentStore) -> None:
    built, log = ensure(
        store,
        f"channels: ['{UNREACHABLE}']\ndependencies: [greeting=1.0, cudatoolkit=11, _openmp_mutex=4.5=1_gnu]\n",
    )
    assert "conda 'greeting =1.0' -> PyPI 'greeting==1.0.*'" in log
    assert "conda 'cudatoolkit =11' is left out" in log
    assert UNREACHABLE in log
    code = "import greeting; print(greeting.__version__)"
    assert (
        subprocess.run([built.python, "-c", code], check=True, capture_output=True, text=True).stdout
        == "1.0\n"
    )


def test_all_that_cannot_be_had_without_a_channel_is_named_at_once(store: EnvironmentStore) -> None:
    with pytest.raises(EnvironmentBuildError) as caught:
        ensure(
            store,
            f"channels: ['{UNREACHABLE}']\ndependencies: [greeting, r-base=4, bioconductor-limma, magma]\n",
        )
    assert caught.value.code == errors.CHANNEL_UNREACHABLE
    for name in ("r-base", "bioconductor-limma", "magma"):
        assert name in caught.value.message
    assert "greeting" not in caught.value.message


def test_programs_of_the_node_stand_in(store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/git" if name == "git" else None)
    _, log = ensure(store, f"channels: ['{UNREACHABLE}']\ndependencies: [greeting, git]\n")
    assert "conda 'git' -> /usr/bin/git of this node" in log
    with pytest.raises(EnvironmentBuildError, match="no program 'java'"):
        ensure(store, f"channels: ['{UNREACHABLE}']\ndependencies: [greeting, openjdk=11]\n")


def test_the_mapping_can_be_forbidden(store: EnvironmentStore) -> None:
    store.settings = msgspec.structs.replace(store.settings, allow_pypi_mapping=False)
    with pytest.raises(EnvironmentBuildError) as caught:
        ensure(store, f"channels: ['{UNREACHABLE}']\ndependencies: [greeting]\n")
    assert caught.value.code == errors.CHANNEL_UNREACHABLE
    assert "allow_pypi_mapping" in caught.value.message


def test_channels_can_be_switched_off(store: EnvironmentStore, channel: Path) -> None:
    store.settings = msgspec.structs.replace(store.settings, conda="never")
    built, log = ensure(store, f"channels: [file://{channel}]\ndependencies: [greeting]\n")
    assert built.id.endswith(f"-py{built.python_version.replace('.', '', 1).split('.')[0]}")
    assert "switched off" in log


def test_a_container_runtime_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = ContainerPlan(runtime="podman", image="python:3.11")
    with pytest.raises(EnvironmentBuildError, match="container_runtime") as caught:
        containers.provide(plan, "0" * 32, Programs(BuildLog(io.StringIO())), tmp_path)
    assert caught.value.code == errors.IMAGE_UNAVAILABLE
