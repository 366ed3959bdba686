"""The states of a node (architecture.md, State machines)."""

from __future__ import annotations

from enum import StrEnum

from noriba.models.errors import IllegalTransition


class NodeState(StrEnum):
    REQUESTED = "requested"
    PROVISIONING = "provisioning"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    RELEASED = "released"
    LOST = "lost"


_N = NodeState
ALIVE = frozenset({_N.REQUESTED, _N.PROVISIONING, _N.IDLE, _N.BUSY, _N.DRAINING})
METERED = frozenset({_N.IDLE, _N.BUSY, _N.DRAINING})
"""Metering opens when a node is there and closes when it is released or lost (product.md R11)."""

TRANSITIONS: dict[NodeState, frozenset[NodeState]] = {
    _N.REQUESTED: frozenset({_N.PROVISIONING, _N.IDLE, _N.BUSY, _N.RELEASED, _N.LOST}),
    _N.PROVISIONING: frozenset({_N.IDLE, _N.BUSY, _N.RELEASED, _N.LOST}),
    _N.IDLE: frozenset({_N.BUSY, _N.DRAINING, _N.RELEASED, _N.LOST}),
    _N.BUSY: frozenset({_N.IDLE, _N.DRAINING, _N.RELEASED, _N.LOST}),
    _N.DRAINING: frozenset({_N.RELEASED, _N.LOST}),
    _N.RELEASED: frozenset(),
    _N.LOST: frozenset({_N.RELEASED}),
}


def check_move(current: NodeState, target: NodeState) -> None:
    """Raise IllegalTransition unless the node may go from ``current`` to ``target``."""
    if target not in TRANSITIONS[current]:
        raise IllegalTransition(f"A node can not go from {current} to {target}")
