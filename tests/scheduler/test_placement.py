"""The scheduling cycle, as a pure function."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from noriba.scheduler.placement import Limits, NodeView, Plan, WaitingJob, schedule

KEYS = [("w", "ann", "serverless", "small", "Standard"), ("w", "bob", "serverless", "small", "Standard")]
LIMITS = Limits(max_nodes=4, keep_warm_s=300, max_node_age_s=86400)
NOW = 1_000_000.0


def job(sequence: int, key: int = 0, nodes: int = 1, priority: int = 2) -> WaitingJob:
    return WaitingJob(
        sequence=sequence,
        name=f"j{sequence}",
        workspace_id="w",
        key=KEYS[key],
        node_count=nodes,
        priority=priority,
    )


def node(name: str, key: int = 0, idle_for: float | None = None, age: float = 400) -> NodeView:
    return NodeView(
        id=name,
        key=KEYS[key],
        idle_since=None if idle_for is None else NOW - idle_for,
        created_at=NOW - age,
    )


def placed(plan: Plan) -> dict[str, tuple[list[str], int]]:
    return {place.job.name: (place.nodes, place.new_nodes) for place in plan.placed}


def test_a_job_gets_the_node_used_last_rather_than_a_new_one() -> None:
    plan = schedule([job(1)], [node("old", idle_for=200), node("fresh", idle_for=10)], LIMITS, NOW)
    assert placed(plan) == {"j1": (["fresh"], 0)}


def test_a_job_is_not_queued_behind_a_running_one() -> None:
    assert placed(schedule([job(1)], [node("busy")], LIMITS, NOW)) == {"j1": ([], 1)}


def test_nodes_of_another_user_are_not_used() -> None:
    assert placed(schedule([job(1, key=1)], [node("anns", idle_for=1)], LIMITS, NOW)) == {"j1": ([], 1)}


def test_idle_nodes_of_others_make_room() -> None:
    nodes = [node(f"busy{i}") for i in range(3)] + [node("idle", idle_for=5)]
    plan = schedule([job(1, key=1)], nodes, LIMITS, NOW)
    assert placed(plan) == {"j1": ([], 1)}
    assert [release.node_id for release in plan.released] == ["idle"]


def test_priority_then_age_decide() -> None:
    nodes = [node(f"busy{i}") for i in range(3)]
    plan = schedule([job(1), job(2, priority=3), job(3)], nodes, LIMITS, NOW)
    assert list(placed(plan)) == ["j2"]
    assert [wait.job.name for wait in plan.waiting] == ["j1", "j3"]
    assert all(wait.message for wait in plan.waiting)


def test_smaller_jobs_do_not_grow_into_the_room_a_gang_waits_for() -> None:
    plan = schedule([job(1, nodes=3), job(2)], [node("busy0"), node("busy1")], LIMITS, NOW)
    assert placed(plan) == {}


def test_what_can_never_fit_does_not_hold_others_up() -> None:
    plan = schedule([job(1, nodes=5), job(2)], [], LIMITS, NOW)
    assert placed(plan) == {"j2": ([], 1)}
    assert plan.waiting[0].code == "MoreNodesThanOffered"


def test_idle_nodes_are_given_back_after_their_warm_time_and_old_ones_at_once() -> None:
    nodes = [node("warm", idle_for=299), node("cold", idle_for=301), node("old", idle_for=1, age=90_000)]
    plan = schedule([], nodes, LIMITS, NOW)
    assert sorted(release.node_id for release in plan.released) == ["cold", "old"]


jobs_strategy = st.lists(
    st.builds(
        job,
        sequence=st.integers(0, 50),
        key=st.integers(0, 1),
        nodes=st.integers(1, 6),
        priority=st.integers(1, 3),
    ),
    unique_by=lambda job: job.sequence,
    max_size=8,
)
nodes_strategy = st.lists(
    st.builds(
        node,
        name=st.integers(0, 20).map(str),
        key=st.integers(0, 1),
        idle_for=st.none() | st.floats(0, 1000),
        age=st.floats(1000, 200_000),
    ),
    unique_by=lambda node: node.id,
    max_size=4,
)


@given(jobs_strategy, nodes_strategy)
def test_invariants(jobs: list[WaitingJob], nodes: list[NodeView]) -> None:
    plan = schedule(jobs, nodes, LIMITS, NOW)
    by_id = {node.id: node for node in nodes}
    # Every job is placed or told why not, once.
    assert sorted(j.sequence for j in jobs) == sorted(
        [place.job.sequence for place in plan.placed] + [wait.job.sequence for wait in plan.waiting]
    )
    # Gangs are placed whole.
    assert all(len(p.nodes) + p.new_nodes == p.job.node_count for p in plan.placed)
    # A node is used once, or given back, and only if it was idle and of the job's kind.
    used = [name for place in plan.placed for name in place.nodes]
    released = [release.node_id for release in plan.released]
    assert len(set(used + released)) == len(used + released)
    assert all(by_id[name].idle_since is not None for name in used + released)
    assert all(by_id[name].key == place.job.key for place in plan.placed for name in place.nodes)
    # The engine's limit holds.
    if len(nodes) <= LIMITS.max_nodes:
        after = len(nodes) - len(released) + sum(place.new_nodes for place in plan.placed)
        assert after <= LIMITS.max_nodes
    # The same snapshot gives the same plan.
    assert schedule(list(reversed(jobs)), list(reversed(nodes)), LIMITS, NOW).placed == plan.placed
