"""The engine's in-memory twin: nodes that are only written down. For tests and the simulator."""

from __future__ import annotations

from noriba.engines.base import EngineError, LostNode, NodeRequest, Offer


class MemoryEngine:
    """Remembers what was asked of it. ``lose`` makes a node look dead, ``refuse`` makes starts fail."""

    name = "memory"

    def __init__(self, max_nodes: int = 8) -> None:
        self.max_nodes = max_nodes
        self.nodes: dict[str, NodeRequest] = {}
        self.stopped: list[str] = []
        self.refuse: EngineError | None = None
        self.restartable = False
        self._lost: dict[str, str] = {}

    def offer(self) -> Offer:
        return Offer(max_nodes=self.max_nodes, cpus=64, memory_gib=256, disk_gib=1024)

    def start_node(self, request: NodeRequest) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.nodes.setdefault(request.node_id, request)

    def stop_node(self, node_id: str) -> None:
        self.nodes.pop(node_id, None)
        self.stopped.append(node_id)

    def restart_agent(self, node_id: str) -> bool:
        if self.restartable:
            self._lost.pop(node_id, None)
        return self.restartable

    def lose(self, node_id: str, reason: str = "its process ended") -> None:
        """Make the node look dead."""
        self._lost[node_id] = reason

    def lost_nodes(self, expected: list[str]) -> list[LostNode]:
        return [
            LostNode(node_id=node_id, reason=self._lost[node_id])
            for node_id in expected
            if node_id in self._lost
        ]

    def strangers(self, expected: list[str]) -> list[str]:
        return [node_id for node_id in self.nodes if node_id not in expected]

    def close(self) -> None:
        """Nothing to let go of."""
