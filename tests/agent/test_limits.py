"""Sizes that are held to: memory, CPU, process count; and what is said when memory runs out."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from noriba.agent import cgroups
from noriba.agent.folder import Launch, LaunchProcess, TaskFolder, write_record
from noriba.agent.protocol import TaskSamples, TaskSize
from tests.agent.conftest import wait_until

GROUPS = cgroups.detect()
SMALL = TaskSize(name="Tiny", vcpus=1, memory_gib=0.125, strict=True)

needs_memory_group = pytest.mark.skipif(not GROUPS.limits_memory, reason="no memory control group to be had")


@needs_memory_group
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "exec python -c 'x = bytearray(300 << 20)'",
            "was killed by signal 9 (SIGKILL): the node ran out of memory",
        ),
        (
            "python -c 'x = bytearray(300 << 20)'; exit 3",
            "exited with code 3, after a process that it had started",
        ),
        ("python -c 'x = bytearray(300 << 20)'; exit $?", "was killed by signal 9 (SIGKILL)"),
    ],
)
def test_running_out_of_memory_is_told_apart(node: Any, command: str, words: str) -> None:
    end = node.run(command, size=SMALL)
    assert (end.outcome, end.code) == ("failed", "OutOfMemory")
    assert words in end.message
    assert "used 0.1 of 0.1 GiB (Tiny); choose a larger instance_type" in end.message


@needs_memory_group
def test_a_job_that_copes_with_a_killed_child_completes(node: Any) -> None:
    end = node.run("python -c 'x = bytearray(300 << 20)'; echo went on", size=SMALL)
    assert end.outcome == "completed"


@needs_memory_group
def test_what_fits_is_left_alone(node: Any) -> None:
    assert node.run("python -c 'x = bytearray(60 << 20)'; echo $OMP_NUM_THREADS", size=SMALL).exit_code == 0
    assert node.control_plane.log("job-1.0") == b"1\n"


@pytest.mark.skipif(
    "cpu" not in GROUPS.v1 and "cpu" not in GROUPS.v2_controllers, reason="no cpu control group"
)
def test_cpus_are_held_to(node: Any) -> None:
    half = TaskSize(name="Half", vcpus=1, memory_gib=1.0, strict=True)
    task = node.submit(
        "for i in 1 2 3 4; do python -c 'import time\ne = time.time() + 2.5\nwhile time.time() < e: pass' & done; wait",
        size=half,
    )
    assert node.control_plane.exited(node.name, task).outcome == "completed"
    samples = [
        s for e in node.control_plane.events(node.name, task) if isinstance(e, TaskSamples) for s in e.samples
    ]
    assert max(s.cpu_percent for s in samples) < 115


def test_a_fork_bomb_is_contained(make_node: Any) -> None:
    if "pids" not in GROUPS.v1 and "pids" not in GROUPS.v2_controllers:
        pytest.skip("no pids control group")
    node = make_node().start("--pids-guard", "60")
    end = node.run(
        "python -c '\nimport os, time\nn = 0\ntry:\n  while n < 500:\n    if os.fork() == 0: time.sleep(100)\n    n += 1\n"
        'except OSError as e: print("refused", n)\'; sleep 0.1'
    )
    assert end.outcome == "completed"
    log = node.control_plane.log("job-1.0").split()
    assert log[0] == b"refused"
    assert 40 < int(log[1]) < 60
    assert node.marked() == []


def test_no_group_is_left_behind(node: Any) -> None:
    assert node.run("true", size=SMALL).outcome == "completed"

    def left() -> list[str]:
        found = []
        for base in GROUPS.folders("memory", "pids", "cpuacct", "cpu").values():
            found += [str(p) for p in base.glob(f"noriba/{node.name}-*/job-*")]
        return found

    wait_until(lambda: not left())
    node.control_plane.release(node.name)
    assert node.process.wait(20) == 0
    for base in GROUPS.folders("memory", "pids", "cpuacct", "cpu").values():
        assert not list(base.glob(f"noriba/{node.name}-*"))


def test_without_control_groups_limits_are_per_process(tmp_path: Path) -> None:
    folder = TaskFolder(tmp_path / "task")
    folder.root.mkdir()
    folder.create()
    launch = Launch(
        task_id="t",
        memory_bytes=200 << 20,
        processes=[
            LaunchProcess(
                name="main", argv=["/bin/bash", "-c", "sleep 0.3; ulimit -d; setsid sleep 100 & sleep 0.1"],
                environment={"PATH": os.environ["PATH"]}, folder="/", log="log.txt",
            )
        ],
    )  # fmt: skip
    write_record(folder.launch_file, launch)
    code = (
        "import sys; from pathlib import Path; from noriba.agent import shim, cgroups; "
        "shim._do(Path(sys.argv[1]), None, cgroups.Cgroups(), shim._prepare_process())"
    )
    subprocess.run([sys.executable, "-c", code, str(folder.root)], check=True, timeout=20)
    end = folder.read_exit()
    assert end is not None
    assert (end.cause, end.processes[0].code, end.left_behind) == ("exited", 0, 0)
    assert (folder.logs / "log.txt").read_text() == f"{200 << 10}\n"
    assert end.memory_limit_bytes is None
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY


def test_shared_memory_of_its_own(node: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("private mounts need root here")
    end = node.run(
        "df -B1 --output=size /dev/shm | tail -1; echo x > /dev/shm/noriba-test", shm_size_bytes=8 << 20
    )
    assert end.outcome == "completed"
    assert int(node.control_plane.log("job-1.0")) == 8 << 20
    assert not Path("/dev/shm/noriba-test").exists()
