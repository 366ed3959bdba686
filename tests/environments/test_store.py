"""Real builds of small environments: found again, shared, collected."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from noriba.environments import bytecode, errors
from noriba.environments.catalogue import find_curated
from noriba.environments.errors import EnvironmentBuildError
from noriba.environments.overlay import overlay_environment
from noriba.environments.plan import EnvironmentPlan, plan_environment
from noriba.environments.spec import BuildSettings, BuiltEnvironment, EnvironmentSpec, PipOptions
from noriba.environments.store import EnvironmentStore
from tests.environments.conftest import MINOR, make_wheel


def conda(*requirements: str, python: str = MINOR) -> str:
    lines = "".join(f"  - {line}\n" for line in requirements)
    return f"dependencies:\n- python={python}\n- pip:\n{lines}"


def plan(
    store: EnvironmentStore, *requirements: str, name: str = "small", python: str = MINOR
) -> EnvironmentPlan:
    spec = EnvironmentSpec(name=name, conda_file=conda(*requirements, python=python))
    return plan_environment(spec, find_curated, store.settings)


def build(store: EnvironmentStore, *requirements: str, **fields: str) -> tuple[BuiltEnvironment, str]:
    log = io.StringIO()
    return store.ensure(plan(store, *requirements, **fields), log), log.getvalue()


def run(built: BuiltEnvironment, *command: str) -> str:
    env = {"PATH": f"{built.bin_dir}:/usr/bin:/bin", **built.env}
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip()


def failure(store: EnvironmentStore, wanted: EnvironmentPlan) -> EnvironmentBuildError:
    with pytest.raises(EnvironmentBuildError) as caught:
        store.ensure(wanted, io.StringIO())
    assert not list((store.root / "staging").iterdir())
    return caught.value


def test_an_environment_is_built_works_and_is_found_again(store: EnvironmentStore) -> None:
    built, log = build(store, "greeter")
    assert not built.cache_hit
    assert built.python_version.startswith(MINOR)
    assert run(built, "greet") == f"good day {built.path}"
    assert run(built, str(built.python), "-c", "import greeter; greeter.main()") == f"good day {built.path}"
    assert "packages: greeter 0.1, greeting 2.0" in log
    assert "it was not built on this node before" in log
    again, log = build(store, "greeter", name="another name")
    assert again.cache_hit
    assert again.path == built.path
    assert "cache hit" in log
    assert store.find(plan(store, "greeter")) == msgspec.structs.replace(again)
    assert "greeting==2.0" in store.lock_file(built.id)
    assert "installed" in store.build_log(built.id)


def test_the_interpreters_prefix_is_among_the_mounts(store: EnvironmentStore) -> None:
    built, _ = build(store, "greeting")
    real = Path(os.path.realpath(built.python))
    assert any(Path(mount) in real.parents for mount in built.mounts)
    assert str(built.path) in built.mounts


def test_a_miss_says_what_changed(store: EnvironmentStore) -> None:
    build(store, "greeting==1.0")
    _, log = build(store, "greeting==2.0")
    assert "differs in packages (+greeting==2.0, -greeting==1.0)" in log
    _, log = build(store, "greeting==2.0", name="never seen")
    assert "cache hit" in log


def test_finished_environments_are_read_only(store: EnvironmentStore) -> None:
    built, _ = build(store, "greeter")
    for path in (built.path, built.path / "lib", *built.path.rglob("*.py"), built.bin_dir / "greet"):
        assert not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH), path


def test_files_are_linked_not_copied(store: EnvironmentStore) -> None:
    first, _ = build(store, "greeting==2.0")
    second, _ = build(store, "greeting==2.0", "greeter")
    site = f"lib/python{MINOR}/site-packages/greeting/__init__.py"
    assert (first.path / site).stat().st_ino == (second.path / site).stat().st_ino


def test_bytecode_is_compiled_even_where_python_is_told_not_to_write_it(
    store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    store.settings = msgspec.structs.replace(store.settings, bytecode="inline")
    built, _ = build(store, "greeter")
    assert list(built.path.glob(f"lib/python{MINOR}/site-packages/greeter/__pycache__/*.pyc"))


def test_finishing_in_the_background(store: EnvironmentStore) -> None:
    built, _ = build(store, "greeter")
    bytecode.make_writable(built.path)
    process = bytecode.start_finishing(built.path)
    assert process.wait(60) == 0
    assert list(built.path.glob(f"lib/python{MINOR}/site-packages/greeter/__pycache__/*.pyc"))
    assert not built.path.stat().st_mode & stat.S_IWUSR


def test_a_rebuild_has_the_versions_of_the_first_build(
    store: EnvironmentStore, tmp_path: Path, wheels: Path
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for wheel in wheels.iterdir():
        (links / wheel.name).symlink_to(wheel)
    store.settings = msgspec.structs.replace(
        store.settings, pip=PipOptions(no_index=True, find_links=(str(links),))
    )
    built, _ = build(store, "greeting")
    assert store.remove(built.key) == [built.id]
    make_wheel(links, "greeting", "3.0")
    again, log = build(store, "greeting")
    assert run(again, str(again.python), "-c", "import greeting; print(greeting.__version__)") == "2.0"
    assert "earlier build" in log
    store.remove(built.key, forget_lock=True)
    newest, _ = build(store, "greeting")
    assert run(newest, str(newest.python), "-c", "import greeting; print(greeting.__version__)") == "3.0"


def test_it_is_rebuilt_from_the_cache_alone(store: EnvironmentStore, tmp_path: Path) -> None:
    links = tmp_path / "links"
    for name in ("pip", "setuptools", "wheel", "greeting"):
        make_wheel(links, name, "1.0")
    pages = tmp_path / "simple"
    for wheel in links.iterdir():
        page = pages / wheel.name.split("-")[0] / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text(f'<a href="{wheel.as_uri()}">{wheel.name}</a>')
    store.settings = msgspec.structs.replace(store.settings, pip=PipOptions(index_url=pages.as_uri()))
    built, log = build(store, "greeting")
    assert "installed 4 packages" in log
    store.remove(built.key)
    _, log = build(store, "greeting")
    assert "from the cache" in log


def test_all_packages_that_do_not_exist_are_named_at_once(store: EnvironmentStore) -> None:
    error = failure(store, plan(store, "greeting", "no-such-a", "no-such-b==3"))
    assert error.code == errors.PACKAGE_NOT_FOUND
    assert "'no-such-a', 'no-such-b'" in error.message or "'no-such-b', 'no-such-a'" in error.message


def test_versions_that_do_not_exist_and_conflicts(store: EnvironmentStore) -> None:
    error = failure(store, plan(store, "greeting==9"))
    assert error.code == errors.PACKAGE_NOT_FOUND
    assert "greeting==9" in error.message
    error = failure(store, plan(store, "greeter", "greeting<1"))
    assert error.code in (errors.CONFLICT, errors.PACKAGE_NOT_FOUND)
    assert "greeting" in error.message


def test_problems_of_a_plan_are_raised(store: EnvironmentStore) -> None:
    wanted = plan_environment(EnvironmentSpec(image="rocker/r-ver:4"), find_curated, store.settings)
    assert failure(store, wanted).code == errors.IMAGE_UNAVAILABLE


def test_an_index_that_does_not_answer(store: EnvironmentStore) -> None:
    store.settings = msgspec.structs.replace(
        store.settings, pip=PipOptions(index_url="http://127.0.0.1:9/simple", timeout_s=1)
    )
    assert failure(store, plan(store, "greeting")).code == errors.INDEX_UNREACHABLE


def test_the_nearest_python_is_taken_with_a_warning_or_refused(store: EnvironmentStore) -> None:
    built, log = build(store, "greeting", python="3.99")
    assert any("Python 3.99 was asked" in warning for warning in built.warnings)
    assert "warning: Python 3.99" in log
    again, log = build(store, "greeting", python="3.99")
    assert again.cache_hit
    assert again.warnings == built.warnings
    store.settings = msgspec.structs.replace(store.settings, python_preference="exact")
    other = plan(store, "greeting==1.0", python="3.99")
    error = failure(store, other)
    assert error.code == errors.PYTHON_UNAVAILABLE
    assert "python_preference" in error.message


def test_a_failure_on_another_python_says_so(store: EnvironmentStore) -> None:
    error = failure(store, plan(store, "greeting==9", python="3.99"))
    assert error.code == errors.PACKAGE_NOT_FOUND
    assert "Python 3.99 was asked" in error.message


def test_second_best_is_reconsidered_when_the_node_changes(
    store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(store, "greeting", python="3.99")
    monkeypatch.setattr(EnvironmentStore, "fingerprint", lambda self, plan: "another node")
    built, log = build(store, "greeting", python="3.99")
    assert not built.cache_hit
    assert "what could be had on this node has changed" in log


def test_a_canceled_build_leaves_nothing(store: EnvironmentStore) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(EnvironmentBuildError) as caught:
        store.ensure(plan(store, "greeter"), io.StringIO(), cancel)
    assert caught.value.code == errors.CANCELED
    assert not list((store.root / "staging").iterdir())
    assert store.list() == []
    assert not build(store, "greeter")[0].cache_hit


def test_torch_without_a_cpu_build_is_refused_before_anything_is_downloaded(
    store: EnvironmentStore, tmp_path: Path
) -> None:
    links = tmp_path / "links"
    for name in ("pip", "setuptools", "wheel"):
        make_wheel(links, name, "70.0")
    tag = f"cp{MINOR.replace('.', '')}-cp{MINOR.replace('.', '')}-manylinux_2_28_x86_64"
    make_wheel(links, "torch", "2.14.1", tag=tag)
    make_wheel(links, "needs-torch", "1.0", requires=("torch>=2",))
    settings = msgspec.structs.replace(
        store.settings,
        platform="linux-64",
        gpu=False,
        pip=PipOptions(no_index=True, find_links=(str(links),)),
    )
    store = EnvironmentStore(store.root, settings)
    for wish in ("torch", "torch==2.14.1", "needs-torch"):
        error = failure(store, plan(store, wish))
        assert error.code == errors.PACKAGE_NOT_FOUND
        assert "torch_build" in error.message
    make_wheel(links, "torch", "2.13.0+cpu", tag=tag)
    for wish, moved in (
        ("torch", False),
        ("torch==1.9", True),
        ("torch>=2,<2.14", False),
        ("needs-torch", False),
    ):
        built, log = build(store, wish)
        assert "torch 2.13.0+cpu" in log
        assert bool(built.warnings) == moved, (wish, built.warnings)
    strict = EnvironmentStore(store.root, msgspec.structs.replace(settings, torch_preference="exact"))
    assert failure(strict, plan(strict, "torch==1.8")).code == errors.PACKAGE_NOT_FOUND
    free = EnvironmentStore(store.root, msgspec.structs.replace(settings, torch_build="any"))
    assert "torch 2.14.1" in build(free, "torch")[1]


def test_cpu_builds_are_taken_from_pytorchs_own_index(store: EnvironmentStore, tmp_path: Path) -> None:
    tag = f"cp{MINOR.replace('.', '')}-cp{MINOR.replace('.', '')}-manylinux_2_28_x86_64"
    wheels = [make_wheel(tmp_path / "pypi", name, "70.0") for name in ("pip", "setuptools", "wheel")]
    wheels += [
        make_wheel(tmp_path / "pypi", "torch", version, tag=tag) for version in ("2.2.0", "2.3.0", "2.4.0")
    ]
    wheels += [
        make_wheel(tmp_path / "pypi", "torchvision", v, requires=(f"torch=={t}",), tag=tag)
        for v, t in (("0.17.0", "2.2.0"), ("0.18.0", "2.3.0"), ("0.19.0", "2.4.0"))
    ]
    cpu = [make_wheel(tmp_path / "cpu", "torch", f"{version}+cpu", tag=tag) for version in ("2.2.0", "2.3.0")]
    cpu += [
        make_wheel(tmp_path / "cpu", "torchvision", f"{v}+cpu", requires=(f"torch=={t}",), tag=tag)
        for v, t in (("0.17.0", "2.2.0"), ("0.18.0", "2.3.0"))
    ]
    for name, found in (("pypi-simple", wheels), ("cpu-simple", cpu)):
        for wheel in found:
            page = tmp_path / name / wheel.name.split("-")[0] / "index.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            with page.open("a") as stream:
                stream.write(f'<a href="{wheel.as_uri().replace("+", "%2B")}">{wheel.name}</a>\n')
    (tmp_path / "cpu-simple" / "torchaudio").mkdir()
    (tmp_path / "cpu-simple" / "torchaudio" / "index.html").write_text("")
    store.settings = msgspec.structs.replace(
        store.settings,
        platform="linux-64",
        gpu=False,
        torch_cpu_index=(tmp_path / "cpu-simple").as_uri(),
        pip=PipOptions(index_url=(tmp_path / "pypi-simple").as_uri()),
    )
    for wishes, torch, torchvision in (
        (("torch", "torchvision"), "2.3.0+cpu", "0.18.0+cpu"),
        (("torch==2.2.0", "torchvision"), "2.2.0+cpu", "0.17.0+cpu"),
        (("torchvision==0.17.0",), "2.2.0+cpu", "0.17.0+cpu"),
        (("torch", "torchvision==0.17.0"), "2.2.0+cpu", "0.17.0+cpu"),
    ):
        built, log = build(store, *wishes)
        assert f"torch {torch}, torchvision {torchvision}" in log
        assert built.warnings == []


def test_leases_keep_environments_and_collection_takes_the_oldest(store: EnvironmentStore) -> None:
    log = io.StringIO()
    old = store.ensure(plan(store, "greeting==1.0"), log, lease="job/1")
    new = store.ensure(plan(store, "greeting==2.0"), log)
    for at, built in ((1000, old), (2000, new)):
        os.utime(store.root / "used" / built.id, (at, at))
    assert [info.record.id for info in store.list()] == [new.id, old.id]
    assert store.list()[1].leases == ["job_1"]
    assert store.collect(max_age_s=10, now=1500) == []
    assert store.collect(max_bytes=0) == [new.id]
    assert store.remove(old.key) == []
    store.release_all_except(["job/1"])
    assert store.collect(max_bytes=0) == []
    store.release("job/1")
    assert store.collect(max_bytes=0) == [old.id]
    assert store.list() == []
    assert not list((store.root / "staging").iterdir())


def test_an_overlay_takes_what_a_job_installs(store: EnvironmentStore, tmp_path: Path, wheels: Path) -> None:
    built, _ = build(store, "greeter", "greeting==1.0")
    overlay = overlay_environment(built, tmp_path / "overlay")
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--python", str(overlay.python), "--no-index", "--offline",
         "--no-deps", str(next(wheels.glob("greeting-2.0*")))],
        check=True, capture_output=True, env={**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache")},
    )  # fmt: skip
    env = {"PATH": f"{overlay.env['NORIBA_ENVIRONMENT_PATH']}:/usr/bin:/bin"}
    said = subprocess.run(["greet"], env=env, check=True, capture_output=True, text=True).stdout
    assert said.startswith(f"good day {tmp_path / 'overlay'}")
    assert run(built, "greet").startswith("hello ")


def test_settings_of_the_store_do_not_leak_into_each_other(tmp_path: Path, settings: BuildSettings) -> None:
    one, two = EnvironmentStore(tmp_path / "a", settings), EnvironmentStore(tmp_path / "b", settings)
    build(one, "greeting")
    assert two.list() == []
