"""The controller of jobs and nodes (architecture.md, decision 4): looks at the database, moves it one step.

Two loops, both safe to stop anywhere because the next look repairs what was half done:

* the *scheduling cycle*: snapshot -> decide (scheduler/placement.py) -> commit -> start and stop nodes;
* the *watch*: nodes that died or fell silent are restarted or written off, their jobs tried again.

Agents and requests wake the loops; what they wait for in memory are hints only.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa
import structlog

from noriba import metrics
from noriba.assets.resolving import artifacts_path
from noriba.catalog import instance_types
from noriba.database.tables import jobs, nodes, tasks
from noriba.engines.base import Engine, EngineError, NodeRequest
from noriba.jobs.finish import cancel_in, lose_task_in
from noriba.jobs.plans import Effects, commit_in, move_node_in, snapshot_in
from noriba.jobs.reports import ARTIFACT_CONTAINER, Applied
from noriba.jobs.secrets import node_token
from noriba.jobs.store import add_event_in, check_deletable, delete_in, load_in
from noriba.jobs.sync import Sync
from noriba.models.errors import BadRequest
from noriba.models.job import TERMINAL, JobStatus
from noriba.models.node import ALIVE, NodeState
from noriba.scheduler.placement import Limits, schedule
from noriba.services import Services

log = structlog.get_logger("noriba.control")

CYCLE_S = 1.0
"""The longest the scheduler sleeps without being woken."""
WATCH_S = 1.0
ACTIVE_CACHE_S = 5.0
_TERMINAL_VALUES = [status.value for status in TERMINAL]
_ALIVE_VALUES = [state.value for state in ALIVE]


class Control:
    """Runs jobs on nodes. One per server process."""

    def __init__(self, services: Services, engine: Engine) -> None:
        self._services = services
        self._database = services.database
        self._settings = services.settings.engine
        self.engine = engine
        self._engine_calls = ThreadPoolExecutor(8, thread_name_prefix="engine")
        self._wake = asyncio.Event()
        self.sync = Sync(services, on_applied=self._on_applied)
        self._active: dict[tuple[str, str], float] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._started_at = time.monotonic()
        self._effects: set[asyncio.Task[None]] = set()

    # --- life

    async def start(self) -> None:
        """Begin to look."""
        self._started_at = time.monotonic()
        await self._resume_starts()
        await self._stop_strangers()
        self._loops = [
            asyncio.create_task(self._forever(self._cycle_when_woken), name="scheduler"),
            asyncio.create_task(self._forever(self._watch), name="watch"),
        ]

    def begin_stop(self) -> None:
        """Answer all waiting agents, so that the server can end; they call again until it is back."""
        self.sync.stop()

    async def stop(self) -> None:
        """Stop looking; what is half done is taken up by the next start. Nodes and jobs go on."""
        self.begin_stop()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, *self._effects, return_exceptions=True)
        self._engine_calls.shutdown(wait=True, cancel_futures=True)
        self.engine.close()

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("a controller step failed and will be tried again")
                await asyncio.sleep(1.0)

    def wake(self) -> None:
        """Something changed: look now."""
        self._wake.set()

    # --- scheduling

    async def _cycle_when_woken(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), CYCLE_S)
        self._wake.clear()
        await self.cycle()

    async def cycle(self) -> None:
        """One scheduling cycle."""
        snapshot = await self._database.read(snapshot_in)
        now = self._services.clock()
        limits = Limits(
            max_nodes=self.engine.offer().max_nodes,
            keep_warm_s=self._settings.keep_warm_s,
            max_node_age_s=self._settings.max_node_age_s,
        )
        plan = snapshot.news(schedule(snapshot.waiting, snapshot.alive, limits, now))
        if not (plan.placed or plan.released or plan.waiting):
            return
        keys = self._services.keys
        effects = await self._database.write(
            lambda connection: commit_in(connection, plan, keys, self.engine.name, now)
        )
        self.sync.notify(effects.notify)
        self._carry_out(effects)

    def _carry_out(self, effects: Effects) -> None:
        for node_id in effects.stop:
            self.sync.notify([node_id])
            self._spawn(self._stop_node(node_id))
        for request in effects.start:
            self._spawn(self._start_node(request))

    async def settled(self) -> None:
        """Wait until everything that cycles have set off is done."""
        while self._effects:
            await asyncio.gather(*self._effects)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._effects.add(task)
        task.add_done_callback(self._effects.discard)

    async def _start_node(self, request: NodeRequest) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._engine_calls, self.engine.start_node, request
            )
        except EngineError as error:
            log.warning("node can not be had", node=request.node_id, code=error.code, message=str(error))
            await self._lose(request.node_id, str(error))
            return
        await self._database.write(
            lambda connection: move_node_in(
                connection,
                request.node_id,
                NodeState.PROVISIONING,
                self._services.clock(),
                only_from=(NodeState.REQUESTED,),
            )
        )

    async def _stop_node(self, node_id: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._engine_calls, self.engine.stop_node, node_id)
        self.sync.forget(node_id)

    async def _resume_starts(self) -> None:
        """Nodes that were requested when the server ended were perhaps never started: starting twice is harmless."""
        rows = await self._database.read(
            lambda connection: connection.execute(
                sa.select(nodes).where(
                    nodes.c.state.in_([NodeState.REQUESTED.value, NodeState.PROVISIONING.value])
                )
            ).all()
        )
        for row in rows:
            self._spawn(self._start_node(request_of(self._services, row)))

    async def _stop_strangers(self) -> None:
        """Stop nodes that the engine still has but that were given up, as when we ended before stopping them."""
        expected = await self._database.read(
            lambda connection: list(
                connection.execute(sa.select(nodes.c.id).where(nodes.c.state.in_(_ALIVE_VALUES))).scalars()
            )
        )
        strangers = await asyncio.get_running_loop().run_in_executor(
            self._engine_calls, self.engine.strangers, expected
        )
        for node_id in strangers:
            self._spawn(self._stop_node(node_id))

    # --- watching nodes

    async def _watch(self) -> None:
        await asyncio.sleep(WATCH_S)
        await self.look_after_nodes()

    async def look_after_nodes(self) -> None:
        """Find nodes that died or fell silent; start their agents again or write them off."""
        rows = await self._database.read(
            lambda connection: connection.execute(
                sa.select(nodes.c.id, nodes.c.state, nodes.c.created_at).where(
                    nodes.c.state.in_(_ALIVE_VALUES)
                )
            ).all()
        )
        for state in ALIVE:
            metrics.nodes_alive.labels(state.value).set(sum(row.state == state.value for row in rows))
        if not rows:
            return
        started = [row.id for row in rows if row.state != NodeState.REQUESTED.value]
        lost = await asyncio.get_running_loop().run_in_executor(
            self._engine_calls, self.engine.lost_nodes, started
        )
        for node in lost:
            if await self._revive(node.node_id, node.reason):
                continue
            await self._lose(node.node_id, node.reason)
        gone = {node.node_id for node in lost}
        now = time.monotonic()
        for node_id in started:
            silent_s = now - max(self.sync.last_seen(node_id), self._started_at)
            if node_id not in gone and silent_s > self._settings.heartbeat_timeout_s:
                await self._lose(node_id, f"it was silent for {silent_s:.0f} s")

    async def _revive(self, node_id: str, reason: str) -> bool:
        """Start a new agent where the old one died; its tasks' processes are still there."""
        restarted = await asyncio.get_running_loop().run_in_executor(
            self._engine_calls, self.engine.restart_agent, node_id
        )
        if not restarted:
            return False
        now = self._services.clock()

        def tell(connection: sa.Connection) -> None:
            for task in connection.execute(
                sa.select(tasks).where(tasks.c.node_id == node_id, tasks.c.ended_at.is_(None))
            ):
                add_event_in(
                    connection,
                    task.workspace_id,
                    task.job,
                    at=now,
                    kind="node",
                    attempt=task.attempt,
                    code="AgentRestarted",
                    message=f"The agent of node {node_id} ended ({reason}); a new one took over.",
                )

        await self._database.write(tell)
        log.warning("agent restarted", node=node_id, reason=reason)
        return True

    async def _lose(self, node_id: str, reason: str) -> None:
        """Write a node off."""
        now = self._services.clock()

        def write_off(connection: sa.Connection) -> list[tuple[str, str, str]] | None:
            if not move_node_in(
                connection, node_id, NodeState.LOST, now, only_from=tuple(ALIVE), reason=reason
            ):
                return None
            ended = []
            for task in connection.execute(
                sa.select(tasks).where(tasks.c.node_id == node_id, tasks.c.ended_at.is_(None))
            ).all():
                status = lose_task_in(connection, task, now, reason)
                if status is not None:
                    ended.append((task.workspace_id, task.job, status.value))
            return ended

        ended = await self._database.write(write_off)
        if ended is None:
            return
        log.warning("node lost", node=node_id, reason=reason)
        self._over(ended)
        self._spawn(self._stop_node(node_id))
        self.sync.notify_all()
        self.wake()

    # --- what becomes known

    def _on_applied(self, applied: Applied) -> None:
        self._over(applied.ended)
        if applied.wake:
            self.wake()

    # --- what the API asks

    async def is_job_active(self, workspace_id: str, name: str) -> bool:
        """Whether the job exists and is not over (another replica's news may be some seconds late)."""
        key = (workspace_id, name)
        now = time.monotonic()
        if self._active.get(key, 0.0) > now:
            return True
        status = await self._database.read(
            lambda connection: connection.execute(
                sa.select(jobs.c.status).where(jobs.c.workspace_id == workspace_id, jobs.c.name == name)
            ).scalar_one_or_none()
        )
        if status is None or status in _TERMINAL_VALUES:
            return False
        self._active[key] = now + ACTIVE_CACHE_S
        return True

    def _over(self, ended: list[tuple[str, str, str]]) -> None:
        for workspace_id, name, status in ended:
            self._active.pop((workspace_id, name), None)
            metrics.jobs_total.labels(status).inc()

    async def cancel_job(self, workspace_id: str, name: str, who: str) -> JobStatus:
        """Cancel a job; returns its status now. Raises NotFound, or BadRequest when it is over."""
        now = self._services.clock()

        def cancel(connection: sa.Connection) -> tuple[JobStatus, list[str]]:
            row = load_in(connection, workspace_id, name)
            if JobStatus(row.status) in TERMINAL:
                raise BadRequest(
                    f"Job '{name}' is over ({row.status}), so it can not be canceled.",
                    code="JobTerminal",
                    target="job",
                )
            return cancel_in(connection, row, now, who)

        status, to_tell = await self._database.write(cancel)
        self.sync.notify(to_tell)
        if status in TERMINAL:
            self._over([(workspace_id, name, status.value)])
        return status

    async def delete_job(self, workspace_id: str, name: str) -> None:
        """Delete a job that is over, with its logs and artifacts. Raises NotFound or Conflict."""
        row = await self._database.read(lambda connection: load_in(connection, workspace_id, name))
        check_deletable(row)
        workspace = await self._services.workspaces.by_id(workspace_id)
        # Files first: a job of the same name must not find lines of this one in its log.
        await self._services.blobs.delete_prefix(
            workspace.storage_account, ARTIFACT_CONTAINER, artifacts_path(name)
        )
        await self._database.write(
            lambda connection: delete_in(connection, load_in(connection, workspace_id, name))
        )


def request_of(services: Services, row: sa.Row[Any]) -> NodeRequest:
    """The request with which a node in the database is started."""
    size = instance_types()[row.size.lower()]
    return NodeRequest(
        node_id=row.id,
        token=node_token(services.keys, row.id),
        size=size.name,
        vcpus=size.vcpus,
        memory_gib=size.memory_gib,
        gpus=size.gpus,
        disk_gib=size.disk_gib,
        spot=row.tier == "Spot",
    )
