"""What an engine is: "give me a node, take it back" (architecture.md, decision 2).

An engine knows nothing of jobs. A node is one agent process with given resources, which calls home by itself.
Calls come from a worker thread of the control plane; they may block for a while but not for ever, and each may
be repeated after a restart without harm.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class NodeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A node to start. ``token`` is the bearer token with which its agent calls home."""

    node_id: str
    token: str
    size: str
    vcpus: int
    memory_gib: float
    gpus: int = 0
    disk_gib: float = 0.0
    spot: bool = False


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine can give at most. ``max_nodes`` counts nodes alive at the same time."""

    max_nodes: int
    cpus: float
    memory_gib: float
    disk_gib: float
    gpu_models: list[str] = []
    sizing: str = "emulate"


class LostNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node whose agent is gone although nobody stopped it, and why as far as the engine can tell."""

    node_id: str
    reason: str


class Engine(Protocol):
    """The seam between the control plane and whatever supplies machines."""

    name: str

    def offer(self) -> Offer:
        """What can be had, now and at most."""

    def start_node(self, request: NodeRequest) -> None:
        """Begin to start a node and return; its agent's first call home says that it is there.

        Starting a node that exists already does nothing. Raises ``EngineError`` if it can not be had.
        """

    def stop_node(self, node_id: str) -> None:
        """Take the node back at once, with all its processes. Unknown nodes are no error."""

    def restart_agent(self, node_id: str) -> bool:
        """Start a new agent on a node whose agent died but whose work folder is there; False if not possible."""

    def lost_nodes(self, expected: list[str]) -> list[LostNode]:
        """Those of ``expected`` (ids of nodes the control plane believes alive) that are gone."""

    def strangers(self, expected: list[str]) -> list[str]:
        """Nodes that the engine has but that are not among ``expected``: to be stopped."""

    def close(self) -> None:
        """Let go of the engine's own resources. Nodes stay."""


class EngineError(Exception):
    """A node can not be had. ``code`` is stable, the message says what to change."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
