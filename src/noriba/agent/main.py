"""``python -m noriba.agent``: start a node's agent."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from noriba.agent import cgroups, gpus, linux, variables
from noriba.agent.agent import Agent, new_incarnation
from noriba.agent.certificates import Trust
from noriba.agent.connection import Connection
from noriba.agent.environment import Environments
from noriba.agent.folder import write_record
from noriba.agent.node import Node, Settings, can_mount, facts
from noriba.agent.processes import own_identity
from noriba.agent.reporter import Reporter
from noriba.agent.spawner import Spawner
from noriba.agent.transfer.blob import ConnectionPool
from noriba.agent.transfer.cache import Cache
from noriba.agent.transfer.download import Downloader

_log = logging.getLogger("noriba.agent")


class _Ended(BaseException):
    """SIGTERM or SIGINT: leave, the shims stay."""


def parse(arguments: list[str]) -> Settings:
    """Settings from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m noriba.agent",
        description="Run the jobs of one node of a Noriba control plane.",
    )
    parser.add_argument("--server", required=True, help="URL of the control plane")
    parser.add_argument("--node", required=True, help="id of this node")
    parser.add_argument("--token-file", required=True, type=Path, help="file with the node's bearer token")
    parser.add_argument("--work-dir", required=True, type=Path, help="folder for tasks and the journal")
    parser.add_argument("--environments-dir", required=True, type=Path, help="store of built environments")
    parser.add_argument("--cache-dir", type=Path, help="cache of fetched files (default: in the work folder)")
    parser.add_argument("--ca-file", type=Path, help="certificate authority of the control plane")
    parser.add_argument("--environment-settings", type=Path, help="JSON file with the builder's settings")
    parser.add_argument("--address", default="127.0.0.1", help="host by which other nodes reach this one")
    parser.add_argument("--gpus", default="", help="indices or UUIDs of this node's GPUs, by comma")
    parser.add_argument("--isolation", choices=("process", "sandbox"), default="process")
    parser.add_argument(
        "--inherit", default="", help="further variables that jobs inherit, patterns by comma"
    )
    parser.add_argument("--poll-s", type=float, default=Settings.poll_s)
    parser.add_argument("--sample-s", type=float, default=Settings.sample_s)
    parser.add_argument("--upload-s", type=float, default=Settings.upload_s)
    parser.add_argument("--log-disk-bytes", type=int, default=Settings.log_disk_bytes)
    parser.add_argument("--pids-guard", type=int, default=Settings.pids_guard)
    given = parser.parse_args(arguments)
    return Settings(
        server=given.server.rstrip("/"),
        node_id=given.node,
        token_file=given.token_file.absolute(),
        work_dir=given.work_dir.absolute(),
        environments_dir=given.environments_dir.absolute(),
        cache_dir=(given.cache_dir or given.work_dir / "cache").absolute(),
        ca_file=given.ca_file and given.ca_file.absolute(),
        environment_settings=given.environment_settings and given.environment_settings.absolute(),
        address=given.address,
        gpus=_listed(given.gpus),
        isolation=given.isolation,
        inherit=_listed(given.inherit),
        poll_s=given.poll_s,
        sample_s=given.sample_s,
        upload_s=given.upload_s,
        log_disk_bytes=given.log_disk_bytes,
        pids_guard=given.pids_guard,
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def main(arguments: list[str] | None = None) -> int:
    """Run an agent until its node is released (0) or it is told to end (0; tasks go on without it)."""
    settings = parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    logging.captureWarnings(True)
    settings.work_dir.mkdir(parents=True, exist_ok=True)
    linux.set_process_name("noriba-agent")
    signal.signal(signal.SIGTERM, _on_end)
    signal.signal(signal.SIGINT, _on_end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    agent: Agent | None = None
    lock = os.open(settings.work_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.error("another agent works in %s", settings.work_dir)
        return 1
    sys.setswitchinterval(0.001)  # a task that starts need not wait for a thread that sends
    try:
        incarnation = new_incarnation()
        node = _make_node(settings, incarnation)
        agent = Agent(node, incarnation)
        write_record(settings.work_dir / "agent.json", own_identity())
        _log.info("node %s calls %s", settings.node_id, settings.server)
        agent.run()
    except _Ended:
        _log.info("told to end; %s", "tasks go on without this agent" if agent else "nothing was begun")
        if agent is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            node.reporter.flush(1.0)
            node.reporter.close()
    return 0


def _on_end(number: int, frame: FrameType | None) -> NoReturn:
    raise _Ended


def _make_node(settings: Settings, incarnation: str) -> Node:
    """Everything an agent consists of; no thread has been started when the spawner is forked."""
    groups = cgroups.detect_once()
    spawner = Spawner(groups)
    trust = Trust(settings.work_dir, settings.ca_file)

    def connect() -> Connection:
        return Connection(settings.server, settings.node_id, settings.token_file, settings.ca_file)

    mounts = can_mount()
    cache = Cache(settings.cache_dir)
    return Node(
        settings=settings,
        cgroups=groups,
        spawner=spawner,
        reporter=Reporter(connect(), settings.work_dir / "journal", incarnation),
        environments=Environments(settings.environments_dir, settings.environment_settings),
        trust=trust,
        pool=ConnectionPool(trust.context),
        cache=cache,
        # Root may write to files whatever their mode: only mounts keep the shared content from its jobs.
        downloader=Downloader(cache, share_links=mounts or os.geteuid() != 0),
        connect=connect,
        facts=facts(settings, groups),
        machine_gpus=gpus.models(),
        can_mount=mounts,
        base_environment=variables.inherited(os.environ, settings.inherit),
    )
