"""Watching a task that runs: its shim, the growth of its log, what it uses, and when to upload.

Nothing is polled while a task is quiet, except the clock of the samples: the shim speaks through a pipe (or, after
a restart of the agent, is watched by pidfd), logs through inotify.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from noriba.agent import linux, processes
from noriba.agent.cgroups import TaskCgroup
from noriba.agent.finishing import Collector
from noriba.agent.folder import StopWish, TaskFolder, write_record
from noriba.agent.node import Node
from noriba.agent.protocol import TaskSamples, TaskSpec
from noriba.agent.reporter import Reporter
from noriba.agent.samples import Sampler

_log = logging.getLogger(__name__)

_GATHER_S = 0.03
"""Log bytes written within this time go up in one request."""
_LOG_POLL_S = 0.15
"""How often logs are looked at where inotify is not to be had."""
FIRST_SAMPLE_S = 1.0


@dataclass(frozen=True)
class Watch:
    """By what a shim is watched: its ``pipe`` if this agent started it; by its pid if an earlier one did."""

    pipe: int | None = None


class Watcher:
    """Use ``events`` until it ends; then the shim is gone."""

    def __init__(
        self,
        node: Node,
        folder: TaskFolder,
        spec: TaskSpec,
        watch: Watch,
        wake: int,
        say: Callable[..., None],
        collector: Collector,
    ) -> None:
        self._node = node
        self._folder = folder
        self._spec = spec
        self._pipe = watch.pipe
        self._wake = wake
        self._say = say
        self._collector = collector
        self.started_at = 0.0
        self.told_started = False
        self.start_error = ""
        self._stop_sent: StopWish | None = None
        self._notes_read = 0
        self._sampler: Sampler | None = None

    def stop(self, wish: StopWish) -> None:
        """Ask the shim to end the task; asking again matters only if it is to be quicker."""
        if self._stop_sent is not None and wish.grace_s >= self._stop_sent.grace_s:
            return
        self._stop_sent = wish
        self._say(f"ending the processes: {wish.reason} (SIGTERM, after {wish.grace_s:g} s SIGKILL)")
        write_record(self._folder.stop_file, wish)
        # A shim that has not written its name yet looks for the wish after it has started everything. One that
        # has gone on to another task meanwhile finds no wish there and takes no notice.
        shim = self._folder.shim_at_work()
        if shim is None:
            return
        descriptor = processes.open_pidfd(shim.pid, shim.ticks)
        if descriptor is not None:
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            except ProcessLookupError:
                _log.debug("the shim of %s ended by itself", self._spec.id)
            finally:
                os.close(descriptor)

    def events(self) -> Iterator[Literal["started", "woken", "tick"]]:
        """What happens, until the end of the shim."""
        shim_descriptor = self._open_shim()
        if shim_descriptor is None:
            self._read_notes()
            return
        inotify = self._open_inotify()
        try:
            yield from self._loop(shim_descriptor, inotify)
        finally:
            os.close(shim_descriptor)
            if inotify is not None:
                os.close(inotify)
            self._read_notes()

    def _open_shim(self) -> int | None:
        """The descriptor that tells of the shim's end; None if it is gone already."""
        if self._pipe is not None:
            return self._pipe
        shim = None if self._folder.exit_file.exists() else self._folder.shim_at_work()
        if shim is None:
            return None
        self.told_started = True
        self._begin_sampling(shim)
        return processes.open_pidfd(shim.pid, shim.ticks)

    def _open_inotify(self) -> int | None:
        try:
            descriptor = linux.inotify_open()
        except OSError:
            return None  # the user has used up the kernel's instances: poll
        try:
            for folder, _, _ in os.walk(self._folder.logs):
                if not folder.endswith("lifecycler"):
                    linux.inotify_watch_writes(descriptor, self._folder.logs / folder)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def _loop(self, shim: int, inotify: int | None) -> Iterator[Literal["started", "woken", "tick"]]:
        poller = select.poll()
        poller.register(shim, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        begun = time.monotonic()
        logs_after = begun  # inotify is deaf until then
        sample_at = begun + FIRST_SAMPLE_S
        upload_at = begun + self._node.settings.upload_s
        leader_at = begun + 1.0
        listening = False
        yield "woken"
        while True:
            now = time.monotonic()
            if inotify is not None and not listening and now >= logs_after:
                poller.register(inotify, select.POLLIN)
                listening = True
            until = [sample_at, upload_at, leader_at]
            if inotify is None or not listening:
                until.append(logs_after)
            ready = dict(poller.poll(max(0.0, min(until) - now) * 1000 + 0.5))
            now = time.monotonic()
            if shim in ready:
                if self._pipe is None:
                    return
                message = os.read(self._pipe, 4096)
                for line in message.decode().splitlines():
                    word, _, rest = line.partition(" ")
                    if word == "started":
                        self.started_at, self.told_started = float(rest), True
                        yield "started"
                    elif word == "error":
                        self.start_error = rest
                if not message or b"exited" in message:
                    return
            if inotify is not None and inotify in ready:
                linux.inotify_drain(inotify)
                poller.unregister(inotify)
                listening = False
                logs_after = now + _GATHER_S
                self._node.reporter.poke()
            elif inotify is None and now >= logs_after:
                logs_after = now + _LOG_POLL_S
                self._node.reporter.poke()
            if self._wake in ready:
                os.eventfd_read(self._wake)
                yield "woken"
            if now >= sample_at:
                sample_at = now + self._node.settings.sample_s
                self._sample()
            if now >= upload_at:
                upload_at = now + self._node.settings.upload_s
                self._collector.upload_soon()
            if now >= leader_at:
                leader_at = now + (1.0 if self._serves else 3600.0)
                yield "tick"

    @property
    def _serves(self) -> bool:
        """Whether the end of another node's part is to be asked for."""
        return self._spec.node_count > 1 and self._spec.rank > 0 and self._spec.distribution is not None

    def _begin_sampling(self, shim: processes.Identity) -> None:
        launch = self._folder.read_launch()
        group = None
        if launch is not None and launch.cgroup:
            group = TaskCgroup(self._node.cgroups, launch.cgroup)
        self._sampler = Sampler(group, shim.pid, self._folder.root, self._node.open_gpus())

    def _sample(self) -> None:
        self._read_notes()
        if self._sampler is None:
            shim = self._folder.read_shim()
            if shim is None:
                return
            self._begin_sampling(shim)
            assert self._sampler is not None
            self._sampler.since_start(self.started_at)
        event = TaskSamples(seq=0, task_id=self._spec.id, samples=[self._sampler.take()])
        self._node.reporter.emit(event)

    def _read_notes(self) -> None:
        """Take over what the shim had to say."""
        try:
            with open(self._folder.root / "shim.notes", encoding="utf-8") as file:
                file.seek(self._notes_read)
                for line in file:
                    if not line.endswith("\n"):
                        break
                    at, _, message = line.rstrip("\n").partition(" ")
                    self._say(message, float(at))
                    self._notes_read += len(line.encode())
        except FileNotFoundError:
            return

    @staticmethod
    @contextlib.contextmanager
    def log_growth(reporter: Reporter) -> Iterator[None]:
        """While the body runs, have log files looked at regularly (for logs that others than a shim write)."""
        done = threading.Event()

        def look() -> None:
            while not done.wait(_LOG_POLL_S):
                reporter.poke()

        thread = threading.Thread(target=look, name="build log", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
