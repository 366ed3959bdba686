"""A full disk is said to be one, and kills nothing but the task that filled it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noriba.agent.protocol import TaskInput, TaskOutput

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")


@pytest.fixture
def small_disk(make_node: Any) -> Iterator[Any]:
    """A node whose disk holds 24 MiB."""
    node = make_node()
    node.work_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(node.work_dir)], check=True)
    node.start()
    yield node
    node.clean_up()
    subprocess.run(["umount", "--lazy", str(node.work_dir)], check=True)


def test_an_input_that_does_not_fit(small_disk: Any) -> None:
    node = small_disk
    node.blobs.put("big/f", bytes(40_000_000))
    for mode in ("download", "ro_mount"):
        source = node.location("big")
        end = node.run("true", inputs={"d": TaskInput(type="uri_folder", source=source, mode=mode)})
        assert (end.outcome, end.code) == ("failed", "DiskFull"), end
        assert "larger disk" in end.message
    assert node.run("echo fine").outcome == "completed"


def test_a_job_that_fills_the_disk_fails_by_itself(small_disk: Any) -> None:
    node = small_disk
    end = node.run(
        "head -c 5000000 /dev/zero > ${{outputs.o}}/ok; head -c 90000000 /dev/zero > $TMPDIR/fill || exit 28",
        outputs={"o": TaskOutput(type="uri_folder", target=node.location("o"))},
    )
    assert (end.outcome, end.exit_code) == ("failed", 28)
    assert len(node.blobs.blobs["o/ok"].content) == 5_000_000
    node.control_plane.forget(node.name, "job-1.0")
    assert node.run("echo next").outcome == "completed"


def test_the_cache_gives_way(small_disk: Any, tmp_path: Path) -> None:
    node = small_disk
    for i in range(4):
        node.blobs.put(f"d{i}/f", os.urandom(9_000_000))
        end = node.run(
            "wc -c < ${{inputs.d}}/f",
            inputs={"d": TaskInput(type="uri_folder", source=node.location(f"d{i}"))},
        )
        assert end.outcome == "completed", end
        node.control_plane.forget(node.name, f"job-{i + 1}.0")
