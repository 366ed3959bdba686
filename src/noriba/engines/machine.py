"""What this machine has to offer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from noriba.agent import cgroups, gpus
from noriba.agent.node import machine_memory_bytes


@dataclass(frozen=True)
class Machine:
    """Sizes in GiB; ``gpu_models`` in the order of their indices."""

    cpus: int
    memory_gib: float
    disk_gib: float
    gpu_models: tuple[str, ...]


def look(folder: Path) -> Machine:
    """The machine as this process may use it; the disk is the free part of the one that holds ``folder``."""
    disk = os.statvfs(folder)
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        memory_gib=machine_memory_bytes(cgroups.detect_once()) / 2**30,
        disk_gib=disk.f_bavail * disk.f_frsize / 2**30,
        gpu_models=tuple(gpus.models()),
    )
