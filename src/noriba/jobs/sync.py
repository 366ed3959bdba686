"""What agents and the control plane tell each other (agent/protocol.py), from the control plane's side."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from noriba.agent.protocol import LogSize, SyncRequest, SyncResponse, TaskSpec
from noriba.database.tables import nodes, tasks
from noriba.jobs import reports
from noriba.jobs.reports import Applied
from noriba.jobs.secrets import node_of_token
from noriba.jobs.specs import make_spec
from noriba.models.errors import NoribaError, NotFound, Unauthenticated, Unavailable
from noriba.models.node import ALIVE, NodeState
from noriba.services import Services

log = structlog.get_logger("noriba.sync")
LONGEST_POLL_S = 30.0
_ALIVE_VALUES = [state.value for state in ALIVE]


class Sync:
    """Answers agents. What it remembers (who was heard when, who waits) are hints that may be lost.

    ``on_applied`` is called after each report that was written.
    """

    def __init__(self, services: Services, on_applied: Callable[[Applied], None]) -> None:
        self._services = services
        self._database = services.database
        self._on_applied = on_applied
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._seen: dict[str, float] = {}
        self._stopping = False

    def authenticate(self, node_id: str, token: str) -> None:
        """Raise Unauthenticated unless ``token`` was given to that node."""
        if node_of_token(self._services.keys, token) != node_id:
            raise Unauthenticated("This is not the token of that node.", code="InvalidNodeToken")

    async def sync(self, node_id: str, report: SyncRequest) -> SyncResponse:
        """Take an agent's report, and tell it what changed, waiting for a change up to ``wait_s``.

        Raises NotFound, and Unavailable when it would have to wait and the server is stopping.
        """
        self._seen[node_id] = time.monotonic()
        if self._stopping and report.wait_s > 0:
            raise Unavailable("The server is stopping. Call again shortly.")
        node = await self._node(node_id)
        acked, sizes = int(node.event_seq), list[LogSize]()
        reported = bool(report.events or report.logs or report.facts)
        if reported:
            applied = await self._apply(node_id, report)
            acked, sizes = applied.acked_seq, applied.log_sizes
        deadline = time.monotonic() + (0.0 if reported else min(report.wait_s, LONGEST_POLL_S))
        news = asyncio.Event()
        waiting = self._waiting.setdefault(node_id, set())
        waiting.add(news)
        try:
            while True:
                news.clear()
                response = await self._answer(node_id, report, acked, sizes)
                remaining = deadline - time.monotonic()
                if response.tasks or response.forget or response.node_state != "active" or remaining <= 0:
                    return response
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), remaining)
                self._seen[node_id] = time.monotonic()
                if self._stopping:
                    return response
        finally:
            waiting.discard(news)

    async def _apply(self, node_id: str, report: SyncRequest) -> Applied:
        now, blobs = self._services.clock(), self._services.blobs
        applied = await self._database.write(
            lambda connection: reports.apply_in(connection, blobs, node_id, report, now)
        )
        self.notify(applied.notify)
        self._on_applied(applied)
        return applied

    async def _node(self, node_id: str) -> sa.Row[Any]:
        node = await self._database.read(
            lambda connection: connection.execute(sa.select(nodes).where(nodes.c.id == node_id)).one_or_none()
        )
        if node is None:
            raise NotFound("There is no such node.", code="NodeNotFound")
        return node

    async def _answer(
        self, node_id: str, report: SyncRequest, acked: int, sizes: list[LogSize]
    ) -> SyncResponse:
        node = await self._node(node_id)
        if node.state not in _ALIVE_VALUES:
            return SyncResponse(
                acked_seq=acked, revision=node.revision, node_state="released", log_sizes=sizes
            )
        changed: Sequence[sa.Row[Any]] = []
        if node.revision > report.revision:
            changed = await self._database.read(
                lambda connection: connection.execute(
                    sa.select(tasks).where(
                        tasks.c.node_id == node_id,
                        tasks.c.revision > report.revision,
                        tasks.c.ended_at.is_(None),
                    )
                ).all()
            )
        forget: list[str] = []
        if report.tasks_held:
            kept = await self._database.read(
                lambda connection: set(
                    connection.execute(
                        sa.select(tasks.c.id).where(tasks.c.node_id == node_id, tasks.c.ended_at.is_(None))
                    ).scalars()
                )
            )
            forget = [task_id for task_id in report.tasks_held if task_id not in kept]
        return SyncResponse(
            acked_seq=acked,
            revision=node.revision,
            node_state="draining" if node.state == NodeState.DRAINING.value else "active",
            log_sizes=sizes,
            tasks=[spec for task in changed if (spec := await self._spec(task)) is not None],
            forget=forget,
        )

    async def _spec(self, task: sa.Row[Any]) -> TaskSpec | None:
        """The task's spec; None if what it needs is gone since it was submitted, which ends it."""
        try:
            return await make_spec(self._services, task)
        except Unavailable:
            raise
        except NoribaError as error:
            code, message = error.code, error.message
        log.warning("a task can not be started", task=task.id, code=code, message=message)
        now = self._services.clock()
        applied = await self._database.write(
            lambda connection: reports.refuse_task_in(connection, task.id, code, message, now)
        )
        self.notify(applied.notify)
        self._on_applied(applied)
        return None

    async def task(self, node_id: str, task_id: str) -> TaskSpec:
        """A task again, with fresh addresses. Raises NotFound."""
        row = await self._database.read(
            lambda connection: connection.execute(
                sa.select(tasks).where(tasks.c.id == task_id, tasks.c.node_id == node_id)
            ).one_or_none()
        )
        if row is None:
            raise NotFound("This node has no such task.", code="TaskNotFound")
        return await make_spec(self._services, row)

    # --- waking and watching

    def notify(self, node_ids: list[str]) -> None:
        """Tell the agents of these nodes that there is something new."""
        for node_id in node_ids:
            for event in self._waiting.get(node_id, ()):
                event.set()

    def notify_all(self) -> None:
        """Tell all agents."""
        self.notify(list(self._waiting))

    def last_seen(self, node_id: str) -> float:
        """When the node was heard of last (``time.monotonic``); 0 if never."""
        return self._seen.get(node_id, 0.0)

    def forget(self, node_id: str) -> None:
        """The node is gone."""
        self._waiting.pop(node_id, None)
        self._seen.pop(node_id, None)

    def stop(self) -> None:
        """Answer all agents that wait, and make none wait from now on."""
        self._stopping = True
        self.notify_all()
