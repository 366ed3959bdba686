"""The state machines."""

from __future__ import annotations

import pytest

from noriba.models import job, node
from noriba.models.errors import IllegalTransition
from noriba.models.job import TERMINAL, TRANSITIONS, JobStatus


def test_what_is_over_stays_over() -> None:
    assert all(not TRANSITIONS[status] for status in TERMINAL)
    with pytest.raises(IllegalTransition):
        job.check_move(JobStatus.COMPLETED, JobStatus.RUNNING)


def test_every_state_can_reach_an_end() -> None:
    for start in JobStatus:
        reached, frontier = {start}, [start]
        while frontier:
            for target in TRANSITIONS[frontier.pop()] - reached:
                reached.add(target)
                frontier.append(target)
        assert reached & TERMINAL, start


def test_a_cancel_is_not_taken_back() -> None:
    assert TRANSITIONS[JobStatus.CANCEL_REQUESTED] == TERMINAL


def test_a_released_node_is_gone() -> None:
    with pytest.raises(IllegalTransition):
        node.check_move(node.NodeState.RELEASED, node.NodeState.IDLE)
