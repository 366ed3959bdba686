"""Real launchers: Open MPI, MPICH and Ray from their wheels. Skipped where these can not be installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from noriba.agent.distribution import process_log
from noriba.agent.protocol import TaskDistribution, TaskEnvironment
from tests.agent.conftest import know_environment

pytestmark = pytest.mark.slow

MPI = "python -c 'from mpi4py import MPI; c = MPI.COMM_WORLD; print(c.rank, c.size, c.allreduce(c.rank))'"


def environment(root: Path, store: Path, name: str, *packages: str) -> TaskEnvironment:
    """An environment with ``packages`` that the node knows as ``name``."""
    place = root / name
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(place)], check=True)
    done = subprocess.run(
        [*uv, "pip", "install", "--quiet", "--python", str(place / "bin/python"), *packages],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"{packages} can not be installed here: {done.stderr.strip()[-200:]}")
    asked = TaskEnvironment(image=name)
    know_environment(store, asked, prefix=place)
    return asked


@pytest.mark.parametrize("package", ["mpich", "openmpi"])
def test_mpi_on_one_node(node: Any, tmp_path: Path, environments_dir: Path, package: str) -> None:
    asked = environment(tmp_path, environments_dir, package, package, "mpi4py")
    task = node.submit(
        MPI, environment=asked, distribution=TaskDistribution(type="mpi", process_count_per_instance=3)
    )
    end = node.control_plane.exited(node.name, task, 60.0)
    assert end.outcome == "completed", node.control_plane.log(task, "system_logs/mpirun/mpirun.log")
    for i in range(3):
        assert node.control_plane.log(task, process_log(i, 3)) == f"{i} 3 3\n".encode()
    assert node.marked() == []


def test_mpi_failure_is_the_tasks(node: Any, tmp_path: Path, environments_dir: Path) -> None:
    asked = environment(tmp_path, environments_dir, "mpich", "mpich", "mpi4py")
    task = node.submit(
        "python -c 'from mpi4py import MPI; import sys; sys.exit(5 if MPI.COMM_WORLD.rank == 1 else 0)'",
        environment=asked,
        distribution=TaskDistribution(type="mpi", process_count_per_instance=2),
    )
    end = node.control_plane.exited(node.name, task, 60.0)
    assert (end.outcome, end.exit_code) == ("failed", 5)


@pytest.mark.parametrize("count", [1, 2])
def test_ray(make_node: Any, tmp_path: Path, environments_dir: Path, count: int) -> None:
    asked = environment(tmp_path, environments_dir, "ray", "ray")
    script = (
        "import ray; ray.init(log_to_driver=False); "
        'print(\\"nodes\\", len(ray.nodes()), ray.get(ray.remote(lambda: 42).remote()))'
    )
    nodes = [make_node().start() for _ in range(count)]
    specs = [
        nodes[0].spec(
            f'python -c "{script}"', job="r", rank=rank, node_count=count, environment=asked,
            distribution=TaskDistribution(type="ray"),
        )
        for rank in range(count)
    ]  # fmt: skip
    control_plane = nodes[0].control_plane
    for node, spec in zip(nodes, specs, strict=True):
        control_plane.submit(node.name, spec)
    for node, spec in zip(nodes, specs, strict=True):
        end = control_plane.exited(node.name, spec.id, 120.0)
        assert end.outcome == "completed", {
            k: bytes(v)[-3000:].decode() for k, v in control_plane.logs.items()
        }
        assert node.marked() == []
    log = "user_logs/std_log.txt" if count == 1 else process_log(0, count)
    lines = control_plane.log(specs[0].id, log).decode().splitlines()
    assert f"nodes {count} 42" in lines
