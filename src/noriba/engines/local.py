"""The local engine: nodes are agents on this machine, each with a folder below ``home/nodes``.

::

    nodes/{node}/node.json    what was asked for, and the GPUs it got (NodeRecord)
                 agent.pid    which process its agent is (Identity)
                 token        the node's bearer token, 0600
                 agent.log
                 work/        the agent's work folder

Nodes outlive the server: all that the engine knows is in these files.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from noriba.agent import cgroups, processes
from noriba.agent.folder import (
    TaskFolder,
    folder_name,
    read_record,
    remove_tree,
    write_atomic,
    write_record,
)
from noriba.agent.launching import node_cgroup
from noriba.agent.processes import Identity
from noriba.engines.base import EngineError, LostNode, NodeRequest, Offer
from noriba.engines.forking import Zygote
from noriba.engines.machine import Machine, look

_log = logging.getLogger(__name__)

_EMULATED_NODES_PER_CPU = 4
_MOST_EMULATED_NODES = 64


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node as it was given out."""

    node_id: str
    size: str
    vcpus: int
    memory_gib: float
    gpus: list[int] = []
    strict: bool = False


@dataclass(frozen=True)
class NodeFolder:
    """Paths of one node."""

    root: Path

    @property
    def record(self) -> Path:
        return self.root / "node.json"

    @property
    def agent(self) -> Path:
        return self.root / "agent.pid"

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def log(self) -> Path:
        return self.root / "agent.log"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def read_record(self) -> NodeRecord | None:
        return read_record(self.record, NodeRecord)

    def agent_identity(self) -> Identity | None:
        return read_record(self.agent, Identity)

    def agents(self) -> list[Identity]:
        """Living agents of the node: the one we started, and one that said so itself."""
        named = (self.agent_identity(), read_record(self.work / "agent.json", Identity))
        return [identity for identity in dict.fromkeys(named) if identity is not None and identity.is_alive()]

    def has_agent(self) -> bool:
        return bool(self.agents())


class LocalEngine:
    """Nodes on this machine.

    ``sizing``: ``emulate`` gives out any size as long as there are fewer than ``max_nodes`` nodes; ``strict``
    reserves vCPUs, memory and GPUs of the machine for each. ``environments_dir`` and ``cache_dir`` are shared by
    all nodes (below ``home`` by default). ``inherit`` are patterns of further variables that jobs take over.
    """

    name = "local"

    def __init__(
        self,
        home: Path,
        server_url: str,
        ca_file: Path | None = None,
        sizing: Literal["emulate", "strict"] = "emulate",
        max_nodes: int | None = None,
        isolation: Literal["process", "sandbox"] = "process",
        *,
        environments_dir: Path | None = None,
        cache_dir: Path | None = None,
        environment_settings: Path | None = None,
        inherit: Iterable[str] = (),
        machine: Machine | None = None,
    ) -> None:
        self._nodes = home / "nodes"
        self._nodes.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._server_url = server_url
        self._ca_file = ca_file
        self._sizing = sizing
        self._isolation = isolation
        self._environments = environments_dir or home / "environments"
        self._cache = cache_dir or home / "cache"
        self._environment_settings = environment_settings
        self._inherit = tuple(inherit)
        self._machine = machine or look(self._nodes)
        self._max_nodes = max_nodes or self._usual_max_nodes()
        self._lock = threading.Lock()
        self._zygote = Zygote()
        self._zygote.warm_up()

    def _usual_max_nodes(self) -> int:
        if self._sizing == "strict":
            return max(1, self._machine.cpus)
        return min(_MOST_EMULATED_NODES, max(8, self._machine.cpus * _EMULATED_NODES_PER_CPU))

    # -- Engine -------------------------------------------------------------------------------------------

    def offer(self) -> Offer:
        """What can be had, now and at most."""
        return Offer(
            max_nodes=self._max_nodes,
            cpus=self._machine.cpus,
            memory_gib=self._machine.memory_gib,
            disk_gib=self._machine.disk_gib,
            gpu_models=list(self._machine.gpu_models),
            sizing=self._sizing,
        )

    def start_node(self, request: NodeRequest) -> None:
        """Start a node. Does nothing if it is there. Raises ``EngineError`` (TooManyNodes, NoCapacity, ...)."""
        folder = self._folder(request.node_id)
        with self._lock:
            if folder.read_record() is None:
                record = self._admit(request)
                folder.root.mkdir(mode=0o700, exist_ok=True)
                self._write_token(folder, request.token)
                folder.work.mkdir(mode=0o700, exist_ok=True)
                write_record(folder.record, record)
            elif folder.has_agent():
                return
            self._start_agent(folder, request.node_id)

    def stop_node(self, node_id: str) -> None:
        """Take the node back at once, with all its processes. Unknown nodes are no error."""
        stop_node_folder(self._folder(node_id).root)

    def restart_agent(self, node_id: str) -> bool:
        """Start a new agent on a node whose agent died but whose work folder is there; False if not possible."""
        folder = self._folder(node_id)
        with self._lock:
            if folder.read_record() is None or not folder.work.is_dir():
                return False
            if folder.has_agent():
                return True
            try:
                self._start_agent(folder, node_id)
            except EngineError as error:
                _log.warning("no new agent for node %s: %s", node_id, error)
                return False
            return True

    def lost_nodes(self, expected: list[str]) -> list[LostNode]:
        """Those of ``expected`` (ids of nodes the control plane believes alive) that are gone."""
        lost = []
        for node_id in expected:
            folder = self._folder(node_id)
            if folder.read_record() is None:
                lost.append(LostNode(node_id=node_id, reason="its folder is gone"))
            elif not folder.has_agent():
                identity = folder.agent_identity()
                restarted = identity is not None and identity.boot != processes.boot_id()
                reason = (
                    "the machine was restarted" if restarted else "its agent ended" + _last_words(folder.log)
                )
                lost.append(LostNode(node_id=node_id, reason=reason))
        return lost

    def strangers(self, expected: Iterable[str]) -> list[str]:
        """Ids of nodes on this machine that are not among ``expected``: to be stopped."""
        known = set(expected)
        found = [record.node_id for record in self._records()]
        return [node_id for node_id in found if node_id not in known]

    def close(self) -> None:
        """Let go of the zygote. Nodes stay."""
        self._zygote.close()

    # -- inside -------------------------------------------------------------------------------------------

    def _folder(self, node_id: str) -> NodeFolder:
        return NodeFolder(self._nodes / folder_name(node_id))

    def _records(self) -> list[NodeRecord]:
        found = []
        for root in self._nodes.iterdir():
            record = NodeFolder(root).read_record()
            if record is not None:
                found.append(record)
        return found

    def _admit(self, request: NodeRequest) -> NodeRecord:
        """Find room for a node, or raise."""
        present = self._records()
        if len(present) >= self._max_nodes:
            raise EngineError(
                "TooManyNodes",
                f"This machine runs {len(present)} nodes already, as many as it may. "
                "Wait for one to end, or raise engine.max_nodes.",
            )
        strict = self._sizing == "strict"
        if strict:
            self._check_room(request, present)
        taken = {index for record in present for index in record.gpus}
        free = [index for index in range(len(self._machine.gpu_models)) if index not in taken]
        if strict and len(free) < request.gpus:
            raise EngineError(
                "NoCapacity",
                f"{request.size} needs {request.gpus} GPU; {len(free)} of the machine's "
                f"{len(self._machine.gpu_models)} are free. Choose a size with fewer, or wait.",
            )
        return NodeRecord(
            node_id=request.node_id,
            size=request.size,
            vcpus=request.vcpus,
            memory_gib=request.memory_gib,
            gpus=free[: request.gpus],
            strict=strict,
        )

    def _check_room(self, request: NodeRequest, present: list[NodeRecord]) -> None:
        for what, asked, held, total in (
            ("vCPUs", request.vcpus, sum(r.vcpus for r in present), float(self._machine.cpus)),
            (
                "GiB of memory",
                request.memory_gib,
                sum(r.memory_gib for r in present),
                self._machine.memory_gib,
            ),
        ):
            if held + asked > total:
                raise EngineError(
                    "NoCapacity",
                    f"{request.size} needs {asked:g} {what}; this machine has {total:g}, of which {held:g} are "
                    "reserved (engine.sizing is strict). Choose a smaller size, wait, or set sizing to emulate.",
                )

    def _write_token(self, folder: NodeFolder, token: str) -> None:
        write_atomic(folder.token, token.encode())  # 0600

    def _start_agent(self, folder: NodeFolder, node_id: str) -> None:
        record = folder.read_record()
        assert record is not None
        arguments = [
            "--server", self._server_url, "--node", node_id, "--token-file", str(folder.token),
            "--work-dir", str(folder.work), "--environments-dir", str(self._environments),
            "--cache-dir", str(self._cache), "--isolation", self._isolation,
            "--gpus", ",".join(map(str, record.gpus)), "--inherit", ",".join(self._inherit),
        ]  # fmt: skip
        if self._ca_file is not None:
            arguments += ["--ca-file", str(self._ca_file)]
        if self._environment_settings is not None:
            arguments += ["--environment-settings", str(self._environment_settings)]
        log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            identity = self._zygote.fork(arguments, log) or _spawn(arguments, log)
        except OSError as error:
            raise EngineError("AgentNotStarted", f"The node's agent could not be started: {error}") from error
        finally:
            os.close(log)
        write_record(folder.agent, identity)


def _spawn(arguments: list[str], log: int) -> Identity:
    """Start an agent without the zygote: an interpreter of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "noriba.agent", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    # Nobody waits for it later; a thread does, so that no zombie is left.
    threading.Thread(target=process.wait, name=f"agent {process.pid}", daemon=True).start()
    ticks = processes.start_ticks(process.pid)
    if ticks is None:
        raise OSError("it ended at once")
    return Identity(pid=process.pid, ticks=ticks, boot=processes.boot_id())


def _last_words(log: Path) -> str:
    """The last line of an agent's log, as a part of a sentence."""
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").strip().splitlines()
        if lines:
            return f" (last said: {lines[-1][-200:]})"
    return ""


def running_nodes(nodes: Path) -> list[str]:
    """Ids of the nodes below the folder ``nodes`` whose agents run."""
    if not nodes.is_dir():
        return []
    found = []
    for root in sorted(nodes.iterdir()):
        folder = NodeFolder(root)
        record = folder.read_record()
        if record is not None and folder.has_agent():
            found.append(record.node_id)
    return found


def stop_all_nodes(nodes: Path) -> list[str]:
    """Stop every node below the folder ``nodes``, with the jobs they run; returns their ids."""
    stopped = []
    for root in sorted(nodes.iterdir()) if nodes.is_dir() else []:
        record = NodeFolder(root).read_record()
        stop_node_folder(root)
        stopped.append(record.node_id if record is not None else root.name)
    return stopped


def stop_node_folder(root: Path) -> None:
    """End the agent, shims and users' processes of a node, then remove its folder. Nothing is left behind."""
    folder = NodeFolder(root)
    record = folder.read_record()
    for agent in folder.agents():
        processes.send([agent.pid], signal.SIGKILL)
        processes.wait_gone(agent.pid, agent.ticks, 5.0)
    groups = cgroups.detect_once()
    for task in (folder.work / "tasks").glob("*"):
        _end_task(TaskFolder(task), groups)
    # Whatever slipped away from its shim carries the task's folder in its environment.
    while left := processes.of_tasks_below(folder.work):
        processes.send(left, signal.SIGKILL)
    if record is not None:
        cgroups.remove_below(groups, node_cgroup(record.node_id, folder.work))
    remove_tree(root)


def _end_task(task: TaskFolder, groups: cgroups.Cgroups) -> None:
    launch = task.read_launch()
    group = cgroups.TaskCgroup(groups, launch.cgroup) if launch is not None and launch.cgroup else None
    shim = task.shim_at_work()
    if shim is not None:
        processes.end_tree(shim.pid, shim.ticks)
    if group is not None and group.pids() and not group.kill():
        processes.send(group.pids(), signal.SIGKILL)
    for argv in launch.after_commands if launch is not None else []:
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    if group is not None:
        group.remove()
