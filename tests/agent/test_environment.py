"""Environments as tasks see them, built by the real builder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noriba.agent.protocol import TaskEnvironment
from noriba.environments.build import build_environment
from noriba.environments.spec import EnvironmentSpec

PLAIN = "name: plain\ndependencies:\n  - pip\n"
BUILD_LOG = "azureml-logs/20_image_build_log.txt"
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04"


@pytest.fixture
def empty_store(tmp_path: Path) -> Path:
    return tmp_path / "environments"


def test_an_environment_is_built_once_and_then_known(make_node: Any, empty_store: Path) -> None:
    asked = TaskEnvironment(name="plain", version="1", image=IMAGE, conda_file=PLAIN)
    first = make_node()
    first._environments = empty_store
    first.start()
    task = first.submit("python -c 'import sys; print(sys.prefix)'; which python", environment=asked)
    end = first.control_plane.exited(first.name, task, 120.0)
    assert end.outcome == "completed", first.control_plane.logs
    control_plane = first.control_plane
    assert len(control_plane.log(task, BUILD_LOG)) > 50
    system = control_plane.log(task, "system_logs/lifecycler/node-0.log").decode()
    assert "not known on this node yet" in system
    assert ": built in" in system
    assert control_plane.log(task).decode().startswith(str(first.folder(task) / "environment"))
    # On a second node, and with the builder out of reach, it is simply there.
    second = make_node()
    second._environments = empty_store
    second.start()
    task = second.submit("python -V", environment=asked, job="second")
    assert control_plane.exited(second.name, task).outcome == "completed"
    system = control_plane.log(task, "system_logs/lifecycler/node-0.log").decode()
    assert "ready on this node (Python 3" in system
    assert "nothing had to be built" in control_plane.log(task, BUILD_LOG).decode()


def test_a_used_environment_is_leased(make_node: Any, empty_store: Path) -> None:
    node = make_node()
    node._environments = empty_store
    asked = TaskEnvironment(image=IMAGE, conda_file=PLAIN)
    build_environment(EnvironmentSpec(image=IMAGE, conda_file=PLAIN), empty_store, empty_store.parent / "log")
    node.start()
    for _ in range(2):
        task = node.submit("true", environment=asked)
        assert node.control_plane.exited(node.name, task, 60.0).outcome == "completed"
        assert [p.name for p in empty_store.glob("leases/*/*")] == [node.folder(task).name]
        node.control_plane.forget(node.name, task)
        node.control_plane.wait(lambda: node.control_plane.nodes[node.name].held == [])
        assert not list(empty_store.glob("leases/*/*"))


def test_what_can_not_be_built_is_said(make_node: Any, empty_store: Path) -> None:
    node = make_node()
    node._environments = empty_store
    node.start()
    conda = "dependencies:\n  - pip:\n    - noriba-no-such-package-at-all==99\n"
    task = node.submit("true", environment=TaskEnvironment(image=IMAGE, conda_file=conda))
    end = node.control_plane.exited(node.name, task, 120.0)
    assert end.outcome == "failed"
    assert end.code.startswith("Environment"), end
    assert "noriba-no-such-package-at-all" in end.message
    assert b"noriba-no-such-package-at-all" in node.control_plane.log(task, BUILD_LOG)
    assert "running" not in node.control_plane.phases(node.name, task)


def test_a_build_can_be_stopped(make_node: Any, empty_store: Path) -> None:
    node = make_node()
    node._environments = empty_store
    node.start()
    slow = "dependencies:\n  - pip:\n    - noriba-slow @ http://127.0.0.1:9/slow.whl\n"
    task = node.submit("true", environment=TaskEnvironment(image=IMAGE, conda_file=slow))
    node.control_plane.wait(lambda: "environment" in node.control_plane.phases(node.name, task))
    node.control_plane.cancel(node.name, task)
    end = node.control_plane.exited(node.name, task, 60.0)
    assert end.outcome == "stopped"


def test_a_build_context_is_fetched(make_node: Any, empty_store: Path) -> None:
    node = make_node()
    node._environments = empty_store
    node.start()
    node.blobs.put("ctx/Dockerfile", "FROM python:3.11\nENV GREETING=hello\nRUN pip install --upgrade pip\n")
    task = node.submit("echo $GREETING", environment=TaskEnvironment(build_context=node.location("ctx/")))
    end = node.control_plane.exited(node.name, task, 120.0)
    assert end.outcome == "completed", end
    assert node.control_plane.log(task) == b"hello\n"
