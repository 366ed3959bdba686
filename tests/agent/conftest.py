"""A node for tests: a real agent process against twins of the control plane and of blob storage."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noriba.agent import cgroups, processes
from noriba.agent.environment import Environments
from noriba.agent.folder import read_record
from noriba.agent.launching import node_cgroup
from noriba.agent.protocol import Location, TaskEnvironment, TaskSize, TaskSpec
from noriba.environments.spec import BuiltEnvironment
from tests.agent.twins import BlobTwin, ControlPlaneTwin

NODE = "node-1"
SIZE = TaskSize(name="Standard_DS3_v2", vcpus=4, memory_gib=14.0)


@pytest.fixture
def control_plane() -> Iterator[ControlPlaneTwin]:
    twin = ControlPlaneTwin()
    yield twin
    twin.stop()
    assert not twin.faults


@pytest.fixture
def blobs() -> Iterator[BlobTwin]:
    twin = BlobTwin()
    yield twin
    twin.stop()


@pytest.fixture(scope="session")
def environments_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that knows one environment: the Python which runs the tests."""
    root = tmp_path_factory.mktemp("environments")
    know_environment(root, TaskEnvironment())
    return root


def know_environment(
    root: Path, asked: TaskEnvironment, prefix: Path = Path(sys.prefix), **values: Any
) -> None:
    """Have the store at ``root`` answer ``asked`` with the virtual environment at ``prefix``."""
    environments = Environments(root)
    ready = BuiltEnvironment(
        key="tests", id=f"tests-{prefix.name}", path=prefix, python=prefix / "bin/python",
        bin_dir=prefix / "bin", python_version=platform.python_version(), **values,
    )  # fmt: skip
    answers = root / "answers"
    answers.mkdir(parents=True, exist_ok=True)
    (answers / environments._key(asked)).write_bytes(ready.to_json())


class NodeUnderTest:
    """An agent process and what one does to it."""

    def __init__(
        self, control_plane: ControlPlaneTwin, blobs: BlobTwin, root: Path, environments: Path, name: str
    ) -> None:
        self.control_plane = control_plane
        self.blobs = blobs
        self.name = name
        self.work_dir = root / name
        self.token_file = root / f"{name}.token"
        self.token_file.write_text(control_plane.token)
        self.log_file = root / f"{name}.log"
        self._environments = environments
        self._count = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.options: list[str] = []

    def start(self, *options: str, **variables: str) -> NodeUnderTest:
        self.options = [*options]
        environment = {**os.environ, "AGENT_SECRET": "not for jobs", **variables}
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "noriba.agent",
                    "--server", self.control_plane.url, "--node", self.name, "--token-file", str(self.token_file),
                    "--work-dir", str(self.work_dir), "--environments-dir", str(self._environments),
                    "--sample-s", "0.5", *options,
                ],
                stderr=log, stdout=log, env=environment, start_new_session=True,
            )  # fmt: skip
        return self

    def spec(self, command: str, **values: Any) -> TaskSpec:
        self._count += 1
        job = values.pop("job", f"job-{self._count}")
        return TaskSpec(
            **{
                "id": f"{job}.{values.get('rank', 0)}",
                "revision": 0,
                "desired": "run",
                "job": job,
                "command": command,
                "size": SIZE,
                "grace_s": 5.0,
                "artifacts": self.location(f"ExperimentRun/dcid.{job}"),
                **values,
            }
        )

    def location(self, path: str, uri: str = "") -> Location:
        return Location(
            kind="blob",
            url=self.blobs.url,
            path=path,
            sas=self.blobs.sas,
            uri=uri or f"azureml://datastores/test/paths/{path}",
        )

    def submit(self, command: str, **values: Any) -> str:
        spec = self.spec(command, **values)
        self.control_plane.submit(self.name, spec)
        return spec.id

    def run(self, command: str, **values: Any) -> Any:
        """Submit, wait for the end; returns the TaskExited event."""
        return self.control_plane.exited(self.name, self.submit(command, **values))

    def folder(self, task: str) -> Path:
        return self.work_dir / "tasks" / task

    def shim(self, task: str) -> processes.Identity:
        identity = read_record(self.folder(task) / "shim.json", processes.Identity)
        assert identity is not None
        return identity

    def kill(self) -> None:
        """kill -9 the agent alone."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)

    def marked(self) -> list[int]:
        """Living processes of any task of this node."""
        return processes.of_tasks_below(self.work_dir)

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for file in self.work_dir.glob("tasks/*/shim.json"):
            identity = msgspec.convert(json.loads(file.read_text()), processes.Identity)
            processes.end_tree(identity.pid, identity.ticks)
        processes.send(self.marked(), signal.SIGKILL)
        cgroups.remove_below(cgroups.detect_once(), node_cgroup(self.name, self.work_dir))


@pytest.fixture
def make_node(
    control_plane: ControlPlaneTwin, blobs: BlobTwin, tmp_path: Path, environments_dir: Path
) -> Iterator[Any]:
    made: list[NodeUnderTest] = []

    def make(name: str = "") -> NodeUnderTest:
        node = NodeUnderTest(
            control_plane, blobs, tmp_path, environments_dir, name or f"{tmp_path.name}-{len(made)}"
        )
        made.append(node)
        return node

    yield make
    for node in made:
        with contextlib.suppress(ProcessLookupError):
            node.clean_up()


@pytest.fixture
def node(make_node: Any) -> NodeUnderTest:
    """An agent that has called home."""
    return make_node().start()


def wait_until(condition: Any, timeout_s: float = 10.0, message: str = "") -> None:
    """For what no event tells of: the state of other processes."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, message or "it did not come to pass"
        time.sleep(0.01)
