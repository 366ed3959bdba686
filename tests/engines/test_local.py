"""The local engine with real agents, against the control plane's twin."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noriba.agent import processes
from noriba.engines.base import EngineError, NodeRequest
from noriba.engines.local import LocalEngine, NodeFolder, running_nodes, stop_all_nodes
from noriba.engines.machine import Machine
from tests.agent.conftest import wait_until
from tests.agent.twins import ControlPlaneTwin

MACHINE = Machine(cpus=4, memory_gib=16.0, disk_gib=100.0, gpu_models=("A100", "A100"))


def ask(node_id: str, **values: Any) -> NodeRequest:
    return NodeRequest(
        **{"node_id": node_id, "token": "node-token", "size": "S", "vcpus": 2, "memory_gib": 4.0, **values}
    )


@pytest.fixture
def make_engine(tmp_path: Path, control_plane: ControlPlaneTwin, environments_dir: Path) -> Iterator[Any]:
    made: list[LocalEngine] = []

    def make(**values: Any) -> LocalEngine:
        engine = LocalEngine(
            tmp_path / "home", control_plane.url, None, environments_dir=environments_dir, **values
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()
    stop_all_nodes(tmp_path / "home" / "nodes")


def folder(tmp_path: Path, node_id: str) -> NodeFolder:
    return NodeFolder(tmp_path / "home" / "nodes" / node_id)


def home_calls(control_plane: ControlPlaneTwin, node_id: str) -> None:
    control_plane.wait(lambda: node_id in control_plane.nodes and control_plane.nodes[node_id].facts)


def test_a_node_calls_home_and_goes_without_a_trace(
    make_engine: Any, control_plane: ControlPlaneTwin, tmp_path: Path
) -> None:
    engine = make_engine()
    engine.start_node(ask("n1"))
    engine.start_node(ask("n1"))  # twice is once
    home_calls(control_plane, "n1")
    assert len(control_plane.nodes["n1"].incarnations) == 1
    node = folder(tmp_path, "n1")
    assert os.stat(node.token).st_mode & 0o077 == 0
    assert engine.lost_nodes(["n1"]) == []
    assert running_nodes(tmp_path / "home" / "nodes") == ["n1"]
    (agent,) = node.agents()
    engine.stop_node("n1")
    assert not agent.is_alive()
    assert not node.root.exists()
    engine.stop_node("n1")
    assert [lost.node_id for lost in engine.lost_nodes(["n1"])] == ["n1"]


def test_nodes_outlive_the_engine_and_are_known_to_the_next(
    make_engine: Any, control_plane: ControlPlaneTwin, tmp_path: Path
) -> None:
    first = make_engine()
    first.start_node(ask("n1"))
    home_calls(control_plane, "n1")
    (agent,) = folder(tmp_path, "n1").agents()
    first.close()
    second = make_engine()
    assert agent.is_alive()
    assert second.lost_nodes(["n1"]) == []
    assert second.strangers(["other"]) == ["n1"]
    second.start_node(ask("n1"))
    assert folder(tmp_path, "n1").agents() == [agent]


def test_a_dead_agent_is_lost_and_can_be_restarted(
    make_engine: Any, control_plane: ControlPlaneTwin, tmp_path: Path
) -> None:
    engine = make_engine()
    engine.start_node(ask("n1"))
    home_calls(control_plane, "n1")
    (agent,) = folder(tmp_path, "n1").agents()
    os.kill(agent.pid, signal.SIGKILL)
    assert processes.wait_gone(agent.pid, agent.ticks, 5.0)
    (lost,) = engine.lost_nodes(["n1"])
    assert "its agent ended" in lost.reason
    assert engine.restart_agent("n1")
    control_plane.wait(lambda: len(control_plane.nodes["n1"].incarnations) == 2)
    assert engine.lost_nodes(["n1"]) == []
    assert not engine.restart_agent("unknown")


def test_stopping_a_node_ends_what_its_jobs_started(
    make_engine: Any, control_plane: ControlPlaneTwin, tmp_path: Path, make_node: Any
) -> None:
    engine = make_engine()
    engine.start_node(ask("n1"))
    spec = make_node().spec(
        "trap '' TERM; (setsid sleep 1000 &) ; sleep 1000 & sleep 0.1; echo up; wait", job="j"
    )
    control_plane.submit("n1", spec)
    control_plane.wait(lambda: control_plane.log("j.0") == b"up\n")
    work = folder(tmp_path, "n1").work
    assert len(processes.of_tasks_below(work)) >= 3
    engine.stop_node("n1")
    assert processes.of_tasks_below(work) == []
    assert not folder(tmp_path, "n1").root.exists()


def test_a_dead_zygote_is_replaced(make_engine: Any, control_plane: ControlPlaneTwin, tmp_path: Path) -> None:
    engine = make_engine()
    engine.start_node(ask("n1"))
    zygote = engine._zygote._process
    zygote.kill()
    zygote.wait()
    engine.start_node(ask("n2"))
    home_calls(control_plane, "n2")
    assert engine.lost_nodes(["n1", "n2"]) == []


def test_a_released_node_ends_by_itself(
    make_engine: Any, control_plane: ControlPlaneTwin, tmp_path: Path
) -> None:
    engine = make_engine()
    engine.start_node(ask("n1"))
    home_calls(control_plane, "n1")
    (agent,) = folder(tmp_path, "n1").agents()
    control_plane.release("n1")
    assert processes.wait_gone(agent.pid, agent.ticks, 10.0)
    assert list(folder(tmp_path, "n1").work.iterdir()) == []


def test_emulated_sizes_may_exceed_the_machine(make_engine: Any) -> None:
    engine = make_engine(machine=MACHINE, max_nodes=2)
    assert engine.offer().sizing == "emulate"
    assert engine.offer().max_nodes == 2
    engine.start_node(ask("n1", vcpus=96, memory_gib=900.0, gpus=8))
    engine.start_node(ask("n2", vcpus=96, memory_gib=900.0))
    with pytest.raises(EngineError, match="2 nodes already") as error:
        engine.start_node(ask("n3"))
    assert error.value.code == "TooManyNodes"


def test_strict_sizes_are_reserved(make_engine: Any, tmp_path: Path) -> None:
    engine = make_engine(machine=MACHINE, sizing="strict")
    engine.start_node(ask("n1", vcpus=3, gpus=1))
    with pytest.raises(EngineError, match="2 vCPUs; this machine has 4, of which 3") as error:
        engine.start_node(ask("n2", vcpus=2))
    assert error.value.code == "NoCapacity"
    with pytest.raises(EngineError, match="memory"):
        engine.start_node(ask("n2", vcpus=1, memory_gib=13.0))
    with pytest.raises(EngineError, match="needs 2 GPU; 1 of"):
        engine.start_node(ask("n2", vcpus=1, gpus=2))
    engine.start_node(ask("n2", vcpus=1, gpus=1))
    assert folder(tmp_path, "n1").read_record().gpus == [0]  # type: ignore[union-attr]
    assert folder(tmp_path, "n2").read_record().gpus == [1]  # type: ignore[union-attr]
    engine.stop_node("n1")
    engine.start_node(ask("n3", vcpus=3, gpus=1))
    assert folder(tmp_path, "n3").read_record().gpus == [0]  # type: ignore[union-attr]


def test_a_node_that_dies_at_its_start_says_why(
    make_engine: Any, control_plane: ControlPlaneTwin, tmp_path: Path
) -> None:
    engine = make_engine()
    blocked = folder(tmp_path, "n1")
    blocked.root.mkdir(parents=True)
    blocked.work.mkdir()
    (blocked.work / "tasks").write_text("in the way")
    engine.start_node(ask("n1"))
    wait_until(lambda: engine.lost_nodes(["n1"]))
    assert "FileExistsError" in engine.lost_nodes(["n1"])[0].reason
