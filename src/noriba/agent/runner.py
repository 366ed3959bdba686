"""One task from its arrival to its outcome, on a thread of its own.

Steps, each of which may be taken again after a restart of the agent (``folder.py`` says what tells it how far it was):

    1. environment   look it up, or have it built
    2. data          code, inputs, outputs
    3. starting      meet the other nodes, write the launch record, ask for a shim
    4. running       watch the shim: log, samples, uploads, wish to stop
    5. finalizing    upload what is left, decide the outcome
    6. outcome       durable, then reported
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

from noriba.agent import verdict
from noriba.agent.command import CommandError
from noriba.agent.environment import EnvironmentFailed
from noriba.agent.finishing import Collector, add_finalization
from noriba.agent.folder import (
    Exit,
    StopWish,
    TaskFolder,
    is_disk_full,
    remove_tree,
    write_record,
)
from noriba.agent.launching import make_launch
from noriba.agent.logs import TaskLogs
from noriba.agent.meeting import Meeting
from noriba.agent.node import Node
from noriba.agent.preparing import Preparer
from noriba.agent.protocol import Phase, Sample, TaskExited, TaskPhase, TaskSamples, TaskSpec, TaskWarning
from noriba.agent.remains import ShimLost, end_remains, why_lost
from noriba.agent.runtime import IsolationUnavailable
from noriba.agent.systemlog import SystemLog
from noriba.agent.transfer.errors import Cancelled, TransferError
from noriba.agent.verdict import Verdict
from noriba.agent.watching import FIRST_SAMPLE_S, Watch, Watcher
from noriba.agent.words import duration, gib
from noriba.environments.spec import BuiltEnvironment

_log = logging.getLogger(__name__)


class Abandoned(Exception):
    """The node is released: nothing of the task matters any more."""


class TaskRunner:
    """``resumed``: the task's folder was there when the agent started; ``told``: its outcome is in the journal."""

    def __init__(
        self, node: Node, folder: TaskFolder, spec: TaskSpec, *, resumed: bool = False, told: bool = False
    ) -> None:
        self.node = node
        self.folder = folder
        self.spec = spec
        self.finished = False
        """The outcome is on its way; what the folder holds has been dealt with."""
        self._resumed = resumed
        self._told = told
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._news = threading.Condition()
        self._stop = spec.desired == "stop"
        self._abandoned = False
        self._phases: list[TaskPhase] = []
        self._meeting: Meeting | None = None
        self._log: SystemLog | None = None
        self._thread = threading.Thread(target=self._run, name=f"task {spec.id}", daemon=True)

    # -- from other threads -------------------------------------------------------------------------------

    def start(self) -> None:
        # Before anything else: an end that an earlier agent noted must not be told ahead of the last lines.
        self.node.reporter.watch(TaskLogs(self.spec.id, self.folder.logs, resumed=self._resumed))
        self._thread.start()

    def update(self, spec: TaskSpec) -> None:
        """The control plane wants something else, or knows something more."""
        if spec.revision < self.spec.revision:
            return
        self.folder.write_spec(spec)
        with self._news:
            self.spec = spec
            self._stop = self._stop or spec.desired == "stop"
            self._call()

    def abandon(self) -> None:
        """End everything of the task at once; nothing more is uploaded or reported."""
        with self._news:
            self._abandoned = self._stop = True
            self._call()

    def _call(self) -> None:
        """Wake the task's thread, whatever it waits for."""
        self._news.notify_all()
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Let go of what stays open after the end (the task is forgotten)."""
        if self._meeting is not None:
            self._meeting.close()
        if self._log is not None:
            self._log.close()
        with self._news:
            os.close(self._wake)
            self._wake = -1
        self.node.environments.release(self.folder.root.name)

    def cancelled(self) -> bool:
        return self._stop

    # -- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            outcome = self._attempt()
            if not self._told:
                self._flush_phases()
                self.node.reporter.emit(outcome)
        except Abandoned:
            _log.info("task %s abandoned", self.spec.id)
        finally:
            self.finished = True

    def _keep(self, outcome: TaskExited) -> None:
        """Note the outcome. It need not be durable: it would follow again from the exit record, which is."""
        try:
            write_record(self.folder.outcome_file, outcome)
        except OSError as error:
            if not is_disk_full(error):
                raise

    def _attempt(self) -> TaskExited:
        """Do the steps; whatever goes wrong becomes an outcome with a code and a sentence."""
        try:
            self.folder.create()
            self._log = SystemLog(self.folder.logs / f"system_logs/lifecycler/node-{self.spec.rank}.log")
            known = self.folder.read_outcome()
            if known is not None:
                return known
            found = self._steps()
        except (Cancelled, Abandoned):
            if self._abandoned:
                raise Abandoned from None
            found = Verdict("stopped", message=self.spec.stop_reason or "The job was canceled.")
        except EnvironmentFailed as error:
            found = Verdict("failed", code=error.code, message=str(error), user_error=error.user_error)
        except IsolationUnavailable as error:
            found = Verdict("failed", code="IsolationUnavailable", message=str(error), user_error=False)
        except CommandError as error:
            found = Verdict("failed", code="CommandInvalid", message=str(error))
        except TransferError as error:
            found = Verdict("failed", code=error.code, message=str(error), user_error=error.user_error)
        except Exception as error:
            if is_disk_full(error):
                found = Verdict(
                    "failed",
                    code="DiskFull",
                    message="The node's disk is full: the job's data, environment or outputs do not fit. "
                    "Choose an instance_type with a larger disk, or bring less data.",
                )
            else:
                _log.exception("task %s failed in the agent", self.spec.id)
                found = Verdict(
                    "failed",
                    code="NodeFault",
                    message=f"The node could not run the job: {type(error).__name__}: {error}",
                    user_error=False,
                )
        if self._meeting is not None:
            self._meeting.finish()
        self._say(f"outcome: {found.outcome}" + (f" ({found.code}) {found.message}" if found.message else ""))
        outcome = TaskExited(
            seq=0,
            task_id=self.spec.id,
            at=time.time(),
            outcome=found.outcome,
            exit_code=found.exit_code,
            signal=found.signal,
            code=found.code,
            message=found.message,
            user_error=found.user_error,
        )
        self._keep(outcome)
        return outcome

    def _steps(self) -> Verdict:
        progress = self.folder.read_progress()
        self.progress = progress
        preparer = Preparer(
            self.node, self.folder, self.spec, progress,
            self._say, self._warn, self._fetch_spec, self.cancelled, lambda: self._abandoned,
        )  # fmt: skip
        collector = Collector(self.node, self.folder, self.spec, preparer, self._say)
        meeting = Meeting(self.node, self.folder, self.spec, progress, self._say, self.cancelled)
        self._meeting = meeting
        launched = self.folder.shim_file.exists() or self.folder.exit_file.exists()
        if launched:
            self._say("a new agent has taken over this task")
            meeting.reopen()
            watch = Watch()
        else:
            self._check()
            self._describe_node()
            environment = self._environment(preparer)
            self._data(preparer, collector)
            watch = self._launch(preparer, environment, meeting)
        end = self._watch(watch, collector, meeting)
        return self._finalize(end, collector)

    # 1
    def _environment(self, preparer: Preparer) -> BuiltEnvironment:
        self._phase("environment")
        asked = self.spec.environment
        lease = self.folder.root.name
        log = self._build_log()
        known = self.node.environments.find(asked, lease)
        if known is not None:
            self._say(f"environment {known.key[:16]}: ready on this node (Python {known.python_version})")
            _append(
                log, f"The environment (key {known.key}) is ready on this node; nothing had to be built.\n"
            )
        else:
            self._flush_phases()
            begun = time.monotonic()
            self._say(
                "environment: not known on this node yet; azureml-logs/20_image_build_log.txt follows the build"
            )
            context = preparer.build_context(asked.build_context) if asked.build_context is not None else None
            with Watcher.log_growth(self.node.reporter):
                known = self.node.environments.build(
                    asked, context, self.folder, log, lease, self._wake, self.cancelled
                )
            how = "found in the store" if known.cache_hit else "built"
            self._say(
                f"environment {known.key[:16]}: {how} in {duration(time.monotonic() - begun)} "
                f"({known.packages} packages, Python {known.python_version})"
            )
        for message in known.warnings:
            self._warn("EnvironmentWarning", message)
        self._check()
        return known

    def _build_log(self) -> Path:
        # The name is that of one file of the job: with several nodes only rank 0 may write it.
        suffix = "" if self.spec.rank == 0 else f"_{self.spec.rank}"
        path = self.folder.logs / f"azureml-logs/20_image_build_log{suffix}.txt"
        path.parent.mkdir(exist_ok=True)
        return path

    # 2
    def _data(self, preparer: Preparer, collector: Collector) -> None:
        self._phase("data")
        if self.spec.code is not None or self.spec.inputs or self.spec.outputs:
            self._flush_phases()
        preparer.code()
        preparer.inputs()
        preparer.outputs(collector.outputs)
        collector.begin()
        self._check()

    # 3
    def _launch(self, preparer: Preparer, environment: BuiltEnvironment, meeting: Meeting) -> Watch:
        self._phase("starting")
        if self.spec.node_count > 1:
            self._flush_phases()  # the others may be long in coming
        peers = meeting.meet(self._hear_of_leader)
        own = self.folder.environment
        if own.exists():
            remove_tree(own)
        launch = make_launch(
            self.node, self.folder, self.spec, self.node.environments.overlay(environment, own), peers,
            preparer.input_values(), preparer.output_values(), preparer.read_only_inputs(),
        )  # fmt: skip
        (self.folder.logs / "user_logs").mkdir(exist_ok=True)
        write_record(self.folder.launch_file, launch)
        if self.spec.node_count > 1 and self.progress.peers != peers:
            self.progress.peers = peers
            self.folder.write_progress(self.progress)
        self._check()
        pipe = self.node.spawner.start_shim(self.folder.root)
        self._flush_phases()
        return Watch(pipe)

    # 4
    def _watch(self, watch: Watch, collector: Collector, meeting: Meeting) -> Exit:
        watcher = Watcher(self.node, self.folder, self.spec, watch, self._wake, self._say, collector)
        launch = self.folder.read_launch()
        serves = launch is not None and all(process.background for process in launch.processes)
        for event in watcher.events():
            if event == "started":
                self._phase("running", at=watcher.started_at)
                self._flush_phases()
            if self._abandoned:
                watcher.stop(StopWish(grace_s=0.0, reason="the node is released"))
            elif self._stop:
                reason = self.spec.stop_reason or "The job was canceled."
                watcher.stop(StopWish(grace_s=self.spec.grace_s, reason=reason))
            elif serves and meeting.is_over(self.spec.leader):
                watcher.stop(StopWish(grace_s=min(5.0, self.spec.grace_s), reason=verdict.LEADER_FINISHED))
        end = self.folder.read_exit()
        if end is None or self._abandoned:
            end_remains(self.node, self.folder)
        if self._abandoned:
            raise Abandoned
        if end is None:
            raise ShimLost(watcher.start_error or why_lost(self.folder))
        if not watcher.told_started and end.started_at:
            self._phase("running", at=end.started_at)
        return end

    def _sample_short_run(self, end: Exit) -> None:
        """A run that was over before its first sample is told of by one sample of all of it."""
        elapsed_s = end.ended_at - end.started_at
        if end.cause == "not_started" or elapsed_s > FIRST_SAMPLE_S:
            return
        sample = Sample(
            at=end.ended_at,
            cpu_percent=round(end.cpu_s / max(elapsed_s, 1e-3) * 100, 1),
            memory_bytes=end.memory_peak_bytes,
        )
        self.node.reporter.emit(TaskSamples(seq=0, task_id=self.spec.id, samples=[sample]))

    # 5
    def _finalize(self, end: Exit, collector: Collector) -> Verdict:
        self._phase("finalizing")
        remove_tree(self.folder.tmp)  # nobody is left to use it, and the rest may need the room
        launch = self.folder.read_launch()
        found = verdict.judge(
            end,
            timeout_s=self.spec.timeout_s,
            size=self.spec.size.name,
            several=launch is not None and len(launch.processes) > 1,
        )
        self._say(
            f"the processes ended after {duration(end.ended_at - end.started_at)}; CPU time "
            f"{duration(end.cpu_s)}, most memory {gib(end.memory_peak_bytes)} GiB"
        )
        self._sample_short_run(end)
        if end.left_behind:
            self._warn(
                "ProcessesStuck", f"{end.left_behind} processes could not be ended: they hang in the kernel."
            )
        if not collector.has_work():
            return found
        self._flush_phases()
        return add_finalization(found, collector.finish(self.node.reporter, self.progress))

    def _hear_of_leader(self) -> str:
        """Wait until the control plane has told where rank 0 is."""
        with self._news:
            self._news.wait_for(lambda: self.spec.leader or self._stop)
        self._check()
        return self.spec.leader

    # -- small things -------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._abandoned:
            raise Abandoned
        if self._stop:
            raise Cancelled

    def _say(self, message: str, at: float | None = None) -> None:
        if self._log is not None:
            self._log(message, at)

    def _warn(self, code: str, message: str) -> None:
        if message in self.progress.warnings_sent:
            return
        self.progress.warnings_sent.append(message)
        self.folder.write_progress(self.progress)
        self._say(f"warning: {message}")
        self.node.reporter.emit(
            TaskWarning(seq=0, task_id=self.spec.id, at=time.time(), code=code, message=message)
        )

    def _phase(self, phase: Phase, at: float | None = None) -> None:
        """Note a phase; it is sent with the next thing that takes time, so that a quick start costs no call."""
        self._phases.append(
            TaskPhase(seq=0, task_id=self.spec.id, at=time.time() if at is None else at, phase=phase)
        )

    def _flush_phases(self) -> None:
        phases, self._phases = self._phases, []
        for event in phases:
            self.node.reporter.emit(event)

    def _fetch_spec(self) -> TaskSpec:
        control_plane = self.node.connect()
        try:
            return control_plane.get_task(self.spec.id)
        finally:
            control_plane.close()

    def _describe_node(self) -> None:
        size, real = self.spec.size, self.node.facts
        asked = f"{size.name}: {size.vcpus} vCPU, {size.memory_gib:g} GiB" + (
            f", {size.gpus} GPU" if size.gpus else ""
        )
        has = f"{real.cpus:g} CPU, {gib(real.memory_bytes)} GiB" + (
            f", {len(real.gpus)} GPU ({', '.join(real.gpus)})" if real.gpus else ""
        )
        self._say(f"node {self.node.settings.node_id} on {real.host}, agent {real.agent_version}")
        if size.strict:
            self._say(f"held to the size {asked} (machine: {has}; control groups: {real.cgroup})")
        else:
            self._say(f"the size {asked} is emulated: the job may use all of the machine ({has})")


def _append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)
