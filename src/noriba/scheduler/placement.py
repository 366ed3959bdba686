"""Which waiting job gets which nodes, in one cycle (architecture.md, Scheduling 3-7).

    1 order      waiting jobs by priority, then submission
    2 reuse      warm idle nodes of the right size, tier, workspace and identity
    3 grow       new nodes, as far as the engine offers more; a gang is placed whole or not at all
    4 make room  idle nodes that suit nobody waiting are given back when they stand in the way
    5 shrink     idle nodes beyond their warm time or age are given back

A job never waits for a release (R7) and is never queued behind a running one while a node can be had (R8): the
only thing that makes it wait is the engine's limit.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class WaitingJob(msgspec.Struct, frozen=True, kw_only=True):
    """A queued job. ``key`` is what nodes must match to be reused: workspace, identity, size, tier."""

    sequence: int
    name: str
    workspace_id: str
    key: tuple[str, ...]
    node_count: int
    priority: int = 2


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node that is alive. ``idle_since`` is None while it works or starts."""

    id: str
    key: tuple[str, ...]
    idle_since: float | None
    created_at: float


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds the cycle: the engine's offer and how long idle nodes are kept."""

    max_nodes: int
    keep_warm_s: float
    max_node_age_s: float


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Start the job: rank i on ``nodes[i]``; the ranks beyond get new nodes."""

    job: WaitingJob
    nodes: list[str]
    new_nodes: int


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """The job can not start in this cycle, and why."""

    job: WaitingJob
    code: str
    message: str


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Give the idle node back."""

    node_id: str
    reason: str


class Plan(msgspec.Struct, kw_only=True):
    """What one cycle decided."""

    placed: list[Place] = []
    waiting: list[Wait] = []
    released: list[Release] = []


def schedule(jobs: Sequence[WaitingJob], nodes: Sequence[NodeView], limits: Limits, now: float) -> Plan:
    """Decide one cycle. ``now`` is in seconds since the epoch."""
    plan = Plan()
    idle: dict[tuple[str, ...], list[NodeView]] = {}
    for node in nodes:
        if node.idle_since is None:
            continue
        if now - node.created_at > limits.max_node_age_s:
            plan.released.append(Release(node_id=node.id, reason="reached its maximum age"))
            continue
        idle.setdefault(node.key, []).append(node)
    for pool in idle.values():
        # The one used last is the warmest.
        pool.sort(key=lambda node: (node.idle_since or 0.0, node.id))
    alive = len(nodes) - len(plan.released)
    held_for = 0
    for job in sorted(jobs, key=lambda job: (-job.priority, job.sequence)):
        pool = idle.get(job.key, [])
        reused = min(len(pool), job.node_count)
        missing = job.node_count - reused
        if job.node_count > limits.max_nodes:
            plan.waiting.append(
                Wait(
                    job=job,
                    code="MoreNodesThanOffered",
                    message=f"The job asks for {job.node_count} nodes; this engine offers {limits.max_nodes} at most. "
                    "Ask for fewer instances, or raise engine.max_nodes.",
                )
            )
            continue
        if missing and alive + missing + held_for > limits.max_nodes:
            missing_room = alive + missing + held_for - limits.max_nodes
            room = _make_room(idle, job.key, missing_room)
            if len(room) < missing_room:
                # Nodes that come free are kept for the gang at the head: smaller ones behind it may use what is
                # idle, but may not grow into its room.
                held_for += missing
                plan.waiting.append(
                    Wait(
                        job=job,
                        code="WaitingForNodes",
                        message=f"The job waits for {missing} more "
                        f"node{'s' if missing > 1 else ''}: {alive} of {limits.max_nodes} are in use.",
                    )
                )
                continue
            for node in room:
                plan.released.append(Release(node_id=node.id, reason=f"makes room for job '{job.name}'"))
            alive -= len(room)
        taken = [pool.pop() for _ in range(reused)]
        alive += missing
        plan.placed.append(Place(job=job, nodes=[node.id for node in taken], new_nodes=missing))
    for pool in idle.values():
        for node in pool:
            if node.idle_since is not None and now - node.idle_since > limits.keep_warm_s:
                plan.released.append(Release(node_id=node.id, reason="was idle"))
    return plan


def _make_room(
    idle: dict[tuple[str, ...], list[NodeView]], key: tuple[str, ...], count: int
) -> list[NodeView]:
    """Take ``count`` idle nodes of other kinds out of the pools, longest idle first; nothing if there are fewer."""
    others = [node for other, pool in idle.items() if other != key for node in pool]
    if len(others) < count:
        return []
    others.sort(key=lambda node: (node.idle_since or 0.0, node.id))
    chosen = others[:count]
    for node in chosen:
        idle[node.key].remove(node)
    return chosen
