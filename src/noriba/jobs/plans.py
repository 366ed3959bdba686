"""Carry out what the scheduler decided, in one write."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
import sqlalchemy as sa

from noriba.catalog import instance_types
from noriba.database.tables import jobs, nodes, tasks
from noriba.engines.base import NodeRequest
from noriba.identity.keys import Keys
from noriba.jobs.secrets import node_token
from noriba.jobs.store import find_in, move_in
from noriba.models.job import JobStatus
from noriba.models.node import ALIVE, NodeState, check_move
from noriba.scheduler.placement import NodeView, Place, Plan, WaitingJob

QUEUE_LIMIT = 2000
"""How many waiting jobs one cycle looks at."""


class Effects(msgspec.Struct, kw_only=True):
    """What is to be done outside the database once a plan is committed."""

    start: list[NodeRequest] = []
    stop: list[str] = []
    notify: list[str] = []


def node_key(row: Any) -> tuple[str, ...]:
    """What a job and a node must have in common (``WaitingJob.key``), from a row of either table."""
    return (row.workspace_id, row.identity_scope, row.compute, row.size, row.tier)


class Snapshot(msgspec.Struct, kw_only=True):
    """What a cycle decides over. ``reasons`` are what waiting jobs say already, by sequence."""

    waiting: list[WaitingJob]
    alive: list[NodeView]
    reasons: dict[int, tuple[str, str]]

    def news(self, plan: Plan) -> Plan:
        """The plan without waits that the jobs tell of already."""
        waiting = [
            wait for wait in plan.waiting if self.reasons.get(wait.job.sequence) != (wait.code, wait.message)
        ]
        return Plan(placed=plan.placed, waiting=waiting, released=plan.released)


def snapshot_in(connection: sa.Connection) -> Snapshot:
    """The waiting jobs at the head of the queue and all nodes alive."""
    rows = list(
        connection.execute(
            sa.select(
                jobs.c.sequence,
                jobs.c.name,
                jobs.c.workspace_id,
                jobs.c.identity_scope,
                jobs.c.compute,
                jobs.c.size,
                jobs.c.tier,
                jobs.c.instance_count,
                jobs.c.priority,
                jobs.c.reason,
            )
            .where(jobs.c.status == JobStatus.QUEUED.value)
            .order_by(jobs.c.priority.desc(), jobs.c.sequence)
            .limit(QUEUE_LIMIT)
        )
    )
    waiting = [
        WaitingJob(
            sequence=row.sequence,
            name=row.name,
            workspace_id=row.workspace_id,
            key=node_key(row),
            node_count=row.instance_count,
            priority=row.priority,
        )
        for row in rows
    ]
    reasons = {row.sequence: (row.reason["code"], row.reason["message"]) for row in rows if row.reason}
    alive = [
        NodeView(
            id=row.id,
            key=node_key(row),
            idle_since=row.state_at if row.state == NodeState.IDLE.value else None,
            created_at=row.created_at,
        )
        for row in connection.execute(
            sa.select(
                nodes.c.id,
                nodes.c.workspace_id,
                nodes.c.identity_scope,
                nodes.c.compute,
                nodes.c.size,
                nodes.c.tier,
                nodes.c.state,
                nodes.c.state_at,
                nodes.c.created_at,
            ).where(nodes.c.state.in_([state.value for state in ALIVE]))
        )
    ]
    return Snapshot(waiting=waiting, alive=alive, reasons=reasons)


def commit_in(connection: sa.Connection, plan: Plan, keys: Keys, engine: str, now: float) -> Effects:
    """Write a plan. What has changed since the snapshot is left for the next cycle."""
    effects = Effects()
    for release in plan.released:
        if move_node_in(
            connection,
            release.node_id,
            NodeState.RELEASED,
            now,
            only_from=(NodeState.IDLE,),
            reason=release.reason,
        ):
            effects.stop.append(release.node_id)
    for place in plan.placed:
        _place_in(connection, place, keys, engine, now, effects)
    for wait in plan.waiting:
        connection.execute(
            jobs.update()
            .where(jobs.c.sequence == wait.job.sequence, jobs.c.status == JobStatus.QUEUED.value)
            .values(reason={"code": wait.code, "message": wait.message, "since": now})
        )
    return effects


def move_node_in(
    connection: sa.Connection,
    node_id: str,
    state: NodeState,
    now: float,
    *,
    only_from: tuple[NodeState, ...],
    reason: str | None = None,
) -> bool:
    """Move a node to a state if it is in one of ``only_from``; False if it is not. Raises IllegalTransition."""
    for origin in only_from:
        check_move(origin, state)
    values: dict[str, Any] = {"state": state.value, "state_at": now}
    if state in (NodeState.RELEASED, NodeState.LOST):
        values.update(ended_at=now, end_reason=reason)
    changed = connection.execute(
        nodes.update()
        .where(nodes.c.id == node_id, nodes.c.state.in_([origin.value for origin in only_from]))
        .values(**values)
    )
    return changed.rowcount == 1


def _place_in(
    connection: sa.Connection, place: Place, keys: Keys, engine: str, now: float, effects: Effects
) -> None:
    row = find_in(connection, place.job.workspace_id, place.job.name)
    if row is None or row.status != JobStatus.QUEUED.value:
        return
    idle = {
        node.id: node.revision
        for node in connection.execute(
            sa.select(nodes.c.id, nodes.c.revision).where(
                nodes.c.id.in_(place.nodes), nodes.c.state == NodeState.IDLE.value
            )
        )
    }
    if len(idle) != len(place.nodes):
        return
    attempt = row.attempt + 1
    size = instance_types()[row.size.lower()]
    spot = row.tier == "Spot"
    for rank in range(row.instance_count):
        if rank < len(place.nodes):
            node_id = place.nodes[rank]
            revision = idle[node_id] + 1
            connection.execute(
                nodes.update()
                .where(nodes.c.id == node_id)
                .values(state=NodeState.BUSY.value, state_at=now, revision=revision)
            )
            effects.notify.append(node_id)
        else:
            node_id = f"node-{secrets.token_hex(6)}"
            revision = 1
            connection.execute(
                nodes.insert().values(
                    id=node_id,
                    engine=engine,
                    state=NodeState.REQUESTED.value,
                    workspace_id=row.workspace_id,
                    identity_scope=row.identity_scope,
                    compute=row.compute,
                    size=row.size,
                    tier=row.tier,
                    revision=revision,
                    price_per_hour=size.spot_price_per_hour if spot else size.price_per_hour,
                    created_at=now,
                    state_at=now,
                )
            )
            effects.start.append(
                NodeRequest(
                    node_id=node_id,
                    token=node_token(keys, node_id),
                    size=size.name,
                    vcpus=size.vcpus,
                    memory_gib=size.memory_gib,
                    gpus=size.gpus,
                    disk_gib=size.disk_gib,
                    spot=spot,
                )
            )
        connection.execute(
            tasks.insert().values(
                id=f"{row.sequence}.{attempt}.{rank}",
                workspace_id=row.workspace_id,
                job=row.name,
                attempt=attempt,
                rank=rank,
                node_id=node_id,
                revision=revision,
                desired="run",
                assigned_at=now,
            )
        )
    reused = f"{len(place.nodes)} warm" if place.nodes else ""
    new = f"{place.new_nodes} new" if place.new_nodes else ""
    move_in(
        connection,
        row,
        JobStatus.PROVISIONING if place.new_nodes else JobStatus.PREPARING,
        now=now,
        code="Placed",
        message=f"Placed on {' and '.join(part for part in (reused, new) if part)} "
        f"node{'s' if row.instance_count > 1 else ''} of size {row.size} ({row.tier}).",
        attempt=attempt,
    )
