"""Builds as child processes: one build for many who ask, nothing half-usable when one is killed."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from noriba.environments import errors
from noriba.environments.spec import (
    BuildContext,
    BuildSettings,
    BuiltEnvironment,
    EnvironmentSpec,
    PipOptions,
)
from noriba.environments.store import EnvironmentStore
from tests.environments.conftest import MINOR, make_wheel
from tests.environments.test_store import conda


class Child:
    """``python -m noriba.environments.build`` with its files in a folder of its own."""

    def __init__(
        self, folder: Path, store: Path, spec: EnvironmentSpec, settings: BuildSettings, lease: str = ""
    ) -> None:
        folder.mkdir(parents=True)
        self.log, self.result = folder / "build.log", folder / "result.json"
        (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
        (folder / "settings.json").write_bytes(msgspec.json.encode(settings))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "noriba.environments.build", "--spec", folder / "spec.json", "--store", store,
             "--log", self.log, "--result", self.result, "--settings", folder / "settings.json",
             *(["--lease", lease] if lease else [])],
            env={**os.environ, "PIP_CONFIG_FILE": "/dev/null"} | {k: "" for k in os.environ if k.startswith("PIP_") and k != "PIP_CONFIG_FILE"},
        )  # fmt: skip

    def built(self) -> BuiltEnvironment:
        assert self.process.wait(120) == 0, self.log.read_text()
        return BuiltEnvironment.from_json(self.result.read_bytes())


class GatedIndex(http.server.ThreadingHTTPServer):
    """A package index on loopback that hands out one wheel only once ``open`` is set; ``asked`` tells of the first wish."""

    def __init__(self, folder: Path, gated: str) -> None:
        index = self
        self.asked, self.open, self.served = threading.Event(), threading.Event(), 0

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: object) -> None:
                super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

            def do_GET(self) -> None:
                if self.path.endswith(".whl") and gated in self.path:
                    index.asked.set()
                    index.open.wait(60)
                    index.served += 1
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@contextmanager
def gated_index(folder: Path, gated: str) -> Iterator[tuple[GatedIndex, PipOptions]]:
    for name, version in (("pip", "24.0"), ("setuptools", "70.0"), ("wheel", "0.43"), ("slow", "1.0")):
        make_wheel(folder / "files", name, version)
        page = folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True)
        wheel = f"{name}-{version}-py3-none-any.whl"
        page.write_text(f'<a href="../../files/{wheel}">{wheel}</a>')
    server = GatedIndex(folder, gated)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, PipOptions(index_url=f"http://127.0.0.1:{server.server_port}/simple")
    finally:
        server.open.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def spec() -> EnvironmentSpec:
    return EnvironmentSpec(name="slow one", conda_file=conda("slow"))


def test_two_processes_that_need_the_same_environment_build_it_once(
    tmp_path: Path, settings: BuildSettings, spec: EnvironmentSpec
) -> None:
    with gated_index(tmp_path / "index", "slow-1.0") as (index, pip):
        settings = msgspec.structs.replace(settings, pip=pip)
        first = Child(tmp_path / "1", tmp_path / "store", spec, settings, "job-1")
        assert index.asked.wait(60)
        others = [Child(tmp_path / str(n), tmp_path / "store", spec, settings, f"job-{n}") for n in (2, 3)]
        for other in others:
            _wait_for_line(other, "waiting for 'slow one', which is being built by process")
        index.open.set()
        results = [child.built() for child in (first, *others)]
    assert [built.cache_hit for built in results] == [False, True, True]
    assert len({built.path for built in results}) == 1
    assert str(first.process.pid) in others[0].log.read_text()
    assert EnvironmentStore(tmp_path / "store").list()[0].leases == ["job-1", "job-2", "job-3"]
    assert not list((tmp_path / "store" / "staging").iterdir())


def test_a_build_that_is_killed_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, settings: BuildSettings, spec: EnvironmentSpec
) -> None:
    with gated_index(tmp_path / "index", "slow-1.0") as (index, pip):
        settings = msgspec.structs.replace(settings, pip=pip)
        store = EnvironmentStore(tmp_path / "store", settings)
        first = Child(tmp_path / "1", store.root, spec, settings)
        assert index.asked.wait(60)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        assert not first.result.exists()
        assert store.list() == []
        left = list((store.root / "staging").iterdir())
        assert left, "the build was killed half-way"
        index.open.set()  # uv, which it had started, ends now and gives the lock back
        second = Child(tmp_path / "2", store.root, spec, settings)
        built = second.built()
    assert not built.cache_hit
    assert not any(path.exists() for path in left)
    assert [info.record.id for info in store.list()] == [built.id]
    code = "import slow; print(slow.__version__)"
    assert (
        subprocess.run([built.python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        == "1.0"
    )


def test_what_a_killed_build_left_is_cleaned_without_another_build(
    tmp_path: Path, settings: BuildSettings
) -> None:
    store = EnvironmentStore(tmp_path, settings)
    (store.root / "staging" / "0123.abcd" / "lib").mkdir(parents=True)
    (store.root / "envs" / "4567-py311").mkdir()  # without its record it is no environment
    assert store.list() == []
    assert store.clean_stale() == ["0123.abcd", "4567-py311"]
    assert not list((store.root / "staging").iterdir())


def test_a_terminated_build_says_so(tmp_path: Path, settings: BuildSettings, spec: EnvironmentSpec) -> None:
    with gated_index(tmp_path / "index", "slow-1.0") as (index, pip):
        child = Child(tmp_path / "1", tmp_path / "store", spec, msgspec.structs.replace(settings, pip=pip))
        assert index.asked.wait(60)
        child.process.send_signal(signal.SIGTERM)
        assert child.process.wait(30) == 143
    assert json.loads(child.result.read_bytes())["code"] == errors.CANCELED
    assert not list((tmp_path / "store" / "staging").iterdir())


def test_a_failing_build_answers_code_and_message(tmp_path: Path, settings: BuildSettings) -> None:
    child = Child(tmp_path / "1", tmp_path / "store", EnvironmentSpec(image="rocker/r-ver:4"), settings)
    assert child.process.wait(60) == 1
    answer = json.loads(child.result.read_bytes())
    assert answer["code"] == errors.IMAGE_UNAVAILABLE
    assert "rocker/r-ver:4" in answer["message"]


def test_wrong_arguments_are_told_from_failed_builds(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"name": 3}')
    done = subprocess.run(
        [sys.executable, "-m", "noriba.environments.build", "--spec", tmp_path / "spec.json", "--store", tmp_path, "--log",
         tmp_path / "log", "--result", tmp_path / "result"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "name" in done.stderr
    assert not (tmp_path / "result").exists()


def test_pips_configuration_of_the_node_is_honoured(tmp_path: Path, wheels: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        f"[global]\nno-index = true\nfind-links = {wheels}\n[install]\nconstraint = {tmp_path}/c.txt\n"
    )
    (tmp_path / "c.txt").write_text("greeting<2\n")
    (tmp_path / "spec.json").write_bytes(msgspec.json.encode(EnvironmentSpec(conda_file=conda("greeter"))))
    (tmp_path / "settings.json").write_bytes(
        msgspec.json.encode(BuildSettings(bytecode="off", python_downloads=False))
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    done = subprocess.run(
        [sys.executable, "-m", "noriba.environments.build", "--spec", tmp_path / "spec.json", "--store", tmp_path / "store",
         "--log", tmp_path / "log", "--result", tmp_path / "result", "--settings", tmp_path / "settings.json"],
        check=False, env={**env, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")},
    )  # fmt: skip
    assert done.returncode == 0, (tmp_path / "log").read_text()
    assert "greeting 1.0" in (tmp_path / "log").read_text()


def test_a_dockerfile_with_a_package_of_the_context(tmp_path: Path, settings: BuildSettings) -> None:
    context = tmp_path / "context"
    make_wheel(
        context / "dist", "ours", "4.0", "def main():\n    print('ours')\n", scripts={"ours": "ours:main"}
    )
    (context / "Dockerfile").write_text(
        f"FROM python:{MINOR}-slim\nRUN apt-get install -y libgomp1\nWORKDIR /app\nCOPY dist/ dist/\n"
        "RUN pip install dist/ours-4.0-py3-none-any.whl greeting==1.0\nENV GREETING=hello\nCMD ours\n"
    )
    child = Child(
        tmp_path / "1", tmp_path / "store", EnvironmentSpec(build=BuildContext(str(context))), settings
    )
    built = child.built()
    assert built.env["GREETING"] == "hello"
    assert any("libgomp1" in warning for warning in built.warnings)
    assert (
        subprocess.run([built.bin_dir / "ours"], check=True, capture_output=True, text=True).stdout
        == "ours\n"
    )


def _wait_for_line(child: Child, text: str) -> None:
    """Follow the child's log until a line holds ``text``; the test's own time limit bounds it."""
    turn = threading.Event()
    while not (child.log.exists() and text in child.log.read_text()):
        assert child.process.poll() is None, child.log.read_text() if child.log.exists() else "no log"
        turn.wait(0.02)
