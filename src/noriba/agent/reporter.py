"""The reporter: one thread that sends events and log bytes up, in order, until they are acknowledged.

It alone owns the journal. While the control plane is away events gather in the journal and log bytes in their
files; nothing waits for it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from noriba.agent.connection import ControlPlane, Refused, Unreachable
from noriba.agent.journal import Journal
from noriba.agent.logs import TaskLogs
from noriba.agent.protocol import Event, LogChunk, SyncRequest, SyncResponse, TaskExited

_log = logging.getLogger(__name__)

_LOG_BUDGET_BYTES = 1 << 20
_EVENT_BATCH = 256
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MOST_S = 5.0


def backoff_s(failures: int) -> float:
    """How long to wait after the n-th failure in a row: doubling, bounded, spread out over the nodes."""
    return min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)


class Reporter:
    """``on_acknowledged`` is called (on the reporter's thread) with each event the control plane has."""

    def __init__(self, control_plane: ControlPlane, journal_path: Path, incarnation: str) -> None:
        self._control_plane = control_plane
        self._journal = Journal(journal_path)
        self._incarnation = incarnation
        self.on_acknowledged: Callable[[Event], None] = lambda event: None
        self._condition = threading.Condition()
        self._queue: list[Event] = []
        self._logs: dict[str, TaskLogs] = {}
        self._poked = False
        self._closing = False
        self._contact: int | None = None
        self._retry = False
        self._idle = True
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def pending_events(self) -> list[Event]:
        """Events on disk that are not acknowledged. To be called before ``start``."""
        return list(self._journal.pending)

    def emit(self, event: Event) -> None:
        """Report an event (its ``seq`` is given out here)."""
        with self._condition:
            self._queue.append(event)
            self._idle = False
            self._condition.notify()

    def watch(self, logs: TaskLogs) -> None:
        """Send the logs of a task from the next request on."""
        with self._condition:
            self._logs[logs.task_id] = logs

    def unwatch(self, task_id: str) -> None:
        with self._condition:
            self._logs.pop(task_id, None)

    def poke(self) -> None:
        """Log files may have grown."""
        with self._condition:
            self._poked = True
            self._idle = False
            self._condition.notify()

    def contact(self, acked_seq: int) -> None:
        """The control plane answers (again): sending may begin, or be tried now rather than later."""
        with self._condition:
            if self._contact is None:
                self._contact = acked_seq
            self._retry = True
            self._idle = False
            self._condition.notify()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is acknowledged; False if it is not after ``timeout_s``."""
        self.poke()
        with self._condition:
            return self._condition.wait_for(lambda: self._idle, timeout_s)

    def close(self, timeout_s: float = 1.0) -> None:
        """Bring what is queued to the disk and end the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join(timeout_s)

    # -- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        resumed = False
        failures = 0
        not_before = 0.0
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: self._queue or self._poked or self._retry or self._closing,
                    None if not failures else max(0.0, not_before - time.monotonic()),
                )
                queued, self._queue = self._queue, []
                self._poked = False
                retry, self._retry = self._retry, False
                logs = list(self._logs.values())
                contact, closing = self._contact, self._closing
            self._keep(queued)
            if closing:
                self._journal.close()
                return
            if contact is None:
                continue
            if not resumed:
                self._acknowledged(self._journal.resume(contact))
                resumed = True
            if failures and not retry and time.monotonic() < not_before:
                continue
            try:
                while self._send(logs):
                    with self._condition:
                        queued, self._queue = self._queue, []
                        logs = list(self._logs.values())
                        closing = self._closing
                    self._keep(queued)
                    if closing:
                        break
            except (Unreachable, Refused) as error:
                failures += 1
                if failures in (1, 10, 100):
                    _log.warning("report failed (%d in a row): %s", failures, error)
                not_before = time.monotonic() + backoff_s(failures)
                continue
            if failures:
                _log.info("reports are accepted again after %d failures", failures)
            failures = 0
            with self._condition:
                if not self._queue and not self._poked and not self._retry:
                    self._idle = True
                    self._condition.notify_all()

    def _keep(self, events: list[Event]) -> None:
        if events:
            self._journal.append(events)

    def _send(self, logs: list[TaskLogs]) -> bool:
        """Send one request if there is something to send; whether more is known to be left."""
        budget = _LOG_BUDGET_BYTES
        chunks: list[LogChunk] = []
        unfinished: set[str] = set()
        for task in logs:
            found, complete = task.chunks(budget)
            budget -= sum(len(chunk.data) for chunk in found)
            chunks += found
            if not complete:
                unfinished.add(task.task_id)
        events: list[Event] = []
        for event in self._journal.batch(_EVENT_BATCH):
            # The end of a task is told when its last line is in the same request or already there.
            if isinstance(event, TaskExited) and event.task_id in unfinished:
                break
            events.append(event)
        if not chunks and not events:
            return False
        response = self._control_plane.sync(
            SyncRequest(incarnation=self._incarnation, logs=chunks, events=events)
        )
        if not self._apply(response):
            raise Refused(200, "the control plane took nothing of what was sent")
        return bool(unfinished) or bool(self._journal.pending)

    def _apply(self, response: SyncResponse) -> bool:
        """Note what the control plane has; False if that is nothing new."""
        with self._condition:
            logs = dict(self._logs)
        progress = False
        for size in response.log_sizes:
            task = logs.get(size.task_id)
            if task is not None:
                progress = task.acknowledge(size.file, size.size) or progress
        done = self._journal.acknowledge(response.acked_seq)
        self._acknowledged(done)
        return progress or bool(done)

    def _acknowledged(self, events: list[Event]) -> None:
        for event in events:
            self.on_acknowledged(event)
