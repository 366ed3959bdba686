"""The agent: asks the control plane what is to run on this node, and sees to it.

    loop:  sync (long poll) -> tasks that changed -> one runner per task
    beside it, on their own: the reporter (events and logs up), the runners, the spawner process

State that matters is in the work folder; a killed agent is replaced by another that goes on from there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

from noriba.agent.cgroups import remove_below
from noriba.agent.connection import Refused, Unreachable
from noriba.agent.folder import TaskFolder, folder_name, remove_tree
from noriba.agent.janitor import Janitor
from noriba.agent.launching import node_cgroup
from noriba.agent.node import Node
from noriba.agent.protocol import Event, SyncRequest, SyncResponse, TaskExited, TaskSpec
from noriba.agent.reporter import backoff_s
from noriba.agent.runner import TaskRunner

_log = logging.getLogger(__name__)

_RELEASE_S = 15.0
_TRIM_EVERY_S = 60.0


class Agent:
    """One node's agent. ``run`` returns when the node is released."""

    def __init__(self, node: Node, incarnation: str) -> None:
        self._node = node
        self._incarnation = incarnation
        self._tasks = node.settings.work_dir / "tasks"
        self._janitor = Janitor(node.settings.work_dir / "trash")
        self._runners: dict[str, TaskRunner] = {}
        self._lock = threading.Lock()
        self._revision = 0
        self._draining = False
        self._trimmed_at = time.monotonic()
        node.reporter.on_acknowledged = self._acknowledged

    # -- life ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Poll until the node is released; then nothing of it is left but the work folder itself."""
        self._tasks.mkdir(parents=True, exist_ok=True)
        self._adopt()
        self._node.reporter.start()
        self._poll()
        self._release()

    def _adopt(self) -> None:
        """Take over the tasks that an earlier agent left."""
        told = {e.task_id for e in self._node.reporter.pending_events() if isinstance(e, TaskExited)}
        for root in sorted(self._tasks.iterdir()):
            folder = TaskFolder(root)
            spec = folder.read_spec()
            if spec is None:
                remove_tree(root)  # its maker was killed before anything was known of it
                continue
            runner = TaskRunner(
                self._node,
                folder,
                spec,
                resumed=True,
                told=spec.id in told or folder.reported_file.exists(),
            )
            self._runners[spec.id] = runner
            _log.info("task %s is taken over", spec.id)
            runner.start()

    def _poll(self) -> None:
        connection = self._node.connect()
        facts = self._node.facts
        first, failures = True, 0
        while True:
            request = SyncRequest(
                incarnation=self._incarnation,
                revision=self._revision,
                wait_s=0.0 if first or failures else self._node.settings.poll_s,
                facts=facts if first else None,
                tasks_held=list(self._runners),
            )
            try:
                response = connection.sync(request)
            except (Unreachable, Refused) as error:
                failures += 1
                gone = isinstance(error, Refused) and error.status == 410
                if gone:
                    _log.warning("the control plane does not know this node any more: %s", error)
                    return
                if failures in (1, 10, 100):
                    _log.warning("no sync (%d in a row): %s", failures, error)
                time.sleep(backoff_s(failures))
                continue
            if first or failures:
                _log.info("in contact with the control plane")
                self._node.reporter.contact(response.acked_seq)
            first, failures = False, 0
            self._apply(response)
            if response.node_state == "released":
                _log.info("released")
                return

    # -- what the control plane says ----------------------------------------------------------------------

    def _apply(self, response: SyncResponse) -> None:
        self._draining = response.node_state == "draining"
        if response.node_state == "released":
            return
        try:
            for spec in response.tasks:
                self._take(spec)
            for task_id in response.forget:
                self._forget(task_id)
        except OSError:
            # Such as a full disk. The revision stays, so that the same tasks come again.
            _log.exception("what the control plane wants can not be done now")
            time.sleep(1.0)
        else:
            self._revision = max(self._revision, response.revision)
        self._trim()

    def _take(self, spec: TaskSpec) -> None:
        runner = self._runners.get(spec.id)
        if runner is not None:
            runner.update(spec)
            return
        folder = TaskFolder(self._tasks / folder_name(spec.id))
        folder.root.mkdir(mode=0o700, exist_ok=True)
        folder.write_spec(spec)
        runner = TaskRunner(self._node, folder, spec)
        self._runners[spec.id] = runner
        runner.start()

    def _forget(self, task_id: str) -> None:
        runner = self._runners.get(task_id)
        if runner is None:
            return
        if not runner.finished:
            # The control plane has given the task up, for example as its node was taken for lost.
            runner.abandon()
            if not runner.join(0.0):
                return  # it is named again at the next sync as we still hold it
        with self._lock:
            del self._runners[task_id]
            runner.close()
            self._node.reporter.unwatch(task_id)
            self._janitor.remove(runner.folder.root)

    def _acknowledged(self, event: Event) -> None:
        """An event has arrived (called by the reporter)."""
        if not isinstance(event, TaskExited):
            return
        self._node.reporter.unwatch(event.task_id)
        with self._lock:
            runner = self._runners.get(event.task_id)
            if runner is not None:
                runner.folder.reported_file.touch()

    def _trim(self) -> None:
        now = time.monotonic()
        if now - self._trimmed_at > _TRIM_EVERY_S:
            self._trimmed_at = now
            freed = self._node.cache.trim()
            if freed:
                _log.info("gave %d MiB of cached files back to the disk", freed >> 20)

    def _release(self) -> None:
        """End all tasks and remove what they left."""
        for runner in self._runners.values():
            runner.abandon()
        deadline = time.monotonic() + _RELEASE_S
        for runner in self._runners.values():
            if not runner.join(max(0.0, deadline - time.monotonic())):
                _log.warning("task %s does not end", runner.spec.id)
        for runner in self._runners.values():
            runner.close()
        self._node.reporter.close()
        settings = self._node.settings
        remove_below(self._node.cgroups, node_cgroup(settings.node_id, settings.work_dir))
        clean_work_dir(settings.work_dir)


def clean_work_dir(work_dir: Path) -> None:
    """Remove what an agent keeps in its work folder (the folder itself may be the engine's)."""
    for name in ("tasks", "trash", "cache"):
        remove_tree(work_dir / name)
    for name in ("journal", "journal.new", "agent.json", "lock"):
        (work_dir / name).unlink(missing_ok=True)
    for path in work_dir.glob("ca-*.pem"):
        path.unlink(missing_ok=True)


def new_incarnation() -> str:
    """A name for one life of an agent."""
    return os.urandom(8).hex()
