"""What the parts of an agent share: this node, its settings, its doors to the outside."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import noriba
from noriba.agent import gpus, linux
from noriba.agent.certificates import Trust
from noriba.agent.cgroups import Cgroups
from noriba.agent.connection import ControlPlane
from noriba.agent.environment import Environments
from noriba.agent.gpus import Gpus
from noriba.agent.protocol import NodeFacts
from noriba.agent.reporter import Reporter
from noriba.agent.runtime import Isolation
from noriba.agent.spawner import Spawner
from noriba.agent.transfer.blob import ConnectionPool
from noriba.agent.transfer.cache import Cache
from noriba.agent.transfer.download import Downloader


@dataclass(frozen=True)
class Settings:
    """How an agent was started. Times in seconds, sizes in bytes."""

    server: str
    node_id: str
    token_file: Path
    work_dir: Path
    environments_dir: Path
    cache_dir: Path
    ca_file: Path | None = None
    environment_settings: Path | None = None
    address: str = "127.0.0.1"
    gpus: tuple[str, ...] = ()
    isolation: Isolation = "process"
    inherit: tuple[str, ...] = ()
    poll_s: float = 30.0
    sample_s: float = 5.0
    upload_s: float = 10.0
    log_disk_bytes: int = 1 << 30
    pids_guard: int = 16384


@dataclass
class Node:
    """The node at run time."""

    settings: Settings
    cgroups: Cgroups
    spawner: Spawner
    reporter: Reporter
    environments: Environments
    trust: Trust
    pool: ConnectionPool
    cache: Cache
    downloader: Downloader
    connect: Callable[[], ControlPlane]
    facts: NodeFacts
    machine_gpus: list[str]
    can_mount: bool
    base_environment: dict[str, str] = field(default_factory=dict)
    _gpus: Gpus | None = None
    _gpus_opened: bool = False

    def open_gpus(self) -> Gpus | None:
        """The use of this node's GPUs; the driver's library is loaded when the first task runs."""
        if not self._gpus_opened:
            self._gpus_opened = True
            self._gpus = Gpus.open(list(self.settings.gpus))
        return self._gpus

    @property
    def visible_gpus(self) -> str | None:
        """Value of CUDA_VISIBLE_DEVICES for tasks: theirs, "" for none of the machine's, None if it has none."""
        if not self.machine_gpus and not self.settings.gpus:
            return None
        return ",".join(self.settings.gpus)


def can_mount() -> bool:
    """Whether this process may make mounts of its own, which make inputs read-only even for root."""
    return linux.has_capability(linux.CAP_SYS_ADMIN)


def machine_memory_bytes(cgroups: Cgroups) -> int:
    """Memory of the machine, or of the control group that holds us if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in (
        cgroups.v1.get("memory", Path("/nonexistent")) / "memory.limit_in_bytes",
        (cgroups.v2 or Path("/nonexistent")) / "memory.max",
    ):
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def facts(settings: Settings, cgroups: Cgroups) -> NodeFacts:
    """What the machine under the node really has."""
    disk = os.statvfs(settings.work_dir)
    names = gpus.models()
    own = [names[int(i)] if i.isdigit() and int(i) < len(names) else i for i in settings.gpus]
    return NodeFacts(
        host=socket.gethostname() or platform.node(),
        address=settings.address,
        pid=os.getpid(),
        agent_version=noriba.__version__,
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=machine_memory_bytes(cgroups),
        disk_free_bytes=disk.f_bavail * disk.f_frsize,
        gpus=own,
        isolation=settings.isolation,
        cgroup=cgroups.kind,
    )
