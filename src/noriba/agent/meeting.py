"""The nodes of one job finding each other, from the point of view of one of them (``rendezvous.py`` is the door)."""

from __future__ import annotations

import time
from collections.abc import Callable

from noriba.agent import rendezvous
from noriba.agent.distribution import Peer, ports_needed
from noriba.agent.folder import Progress, TaskFolder
from noriba.agent.node import Node
from noriba.agent.protocol import TaskRendezvous, TaskSpec

_ASK_EVERY_S = 0.9
_LEADER_GONE_S = 300.0
"""After so long without an answer from rank 0 a process that only serves others is ended."""


class Meeting:
    """What one task knows of the job's other nodes."""

    def __init__(
        self,
        node: Node,
        folder: TaskFolder,
        spec: TaskSpec,
        progress: Progress,
        say: Callable[[str], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._node = node
        self._folder = folder
        self._spec = spec
        self._progress = progress
        self._say = say
        self._cancelled = cancelled
        self._job = f"{spec.job}/{spec.attempt}"
        self._leader: rendezvous.Leader | None = None
        self._asked_at = 0.0
        self._silent_since: float | None = None

    def meet(self, hear_of_leader: Callable[[], str]) -> list[Peer]:
        """All nodes of the job, in the order of their ranks. ``hear_of_leader`` waits for rank 0's address.

        Raises ``Cancelled`` if the task is to stop meanwhile.
        """
        spec, host = self._spec, self._node.settings.address
        if self._progress.peers:
            return self._progress.peers
        count = ports_needed(spec.distribution, spec.rank, spec.node_count)
        own = Peer(rank=spec.rank, host=host, ports=rendezvous.free_ports(count, host))
        if spec.node_count == 1:
            return [own]
        if spec.rank == 0:
            peers = self._lead(own)
        else:
            self._say(f"this is rank {spec.rank} of {spec.node_count}; waiting to hear of rank 0")
            peers = rendezvous.join(hear_of_leader(), self._job, own, self._cancelled)
        self._say("all nodes have met: " + ", ".join(f"{peer.rank}={peer.host}" for peer in peers))
        self._progress.peers = peers
        self._folder.write_progress(self._progress)
        return peers

    def _lead(self, own: Peer) -> list[Peer]:
        spec = self._spec
        leader = rendezvous.Leader(self._job, own, spec.node_count, self._progress.rendezvous_port or 0)
        self._leader = leader
        if self._progress.rendezvous_port != leader.port:
            self._progress.rendezvous_port = leader.port
            self._folder.write_progress(self._progress)
        address = f"{own.host}:{leader.port}"
        self._node.reporter.emit(TaskRendezvous(seq=0, task_id=spec.id, at=time.time(), address=address))
        self._say(f"this is rank 0 of {spec.node_count}; the others meet at {address}")
        return leader.wait(
            self._cancelled, lambda count: self._say(f"{count} of {spec.node_count} nodes are here")
        )

    def reopen(self) -> None:
        """After a restart of the agent: rank 0's door opens again, so that the others can ask for the end."""
        spec, port = self._spec, self._progress.rendezvous_port
        if spec.rank == 0 and spec.node_count > 1 and port and self._progress.peers:
            self._leader = rendezvous.Leader(self._job, self._progress.peers[0], spec.node_count, port)
            self._leader.know(self._progress.peers)

    def is_over(self, leader: str) -> bool:
        """Whether rank 0 at ``leader`` has finished its part (asked at most about once a second)."""
        now = time.monotonic()
        if self._spec.node_count == 1 or not leader or now - self._asked_at < _ASK_EVERY_S:
            return False
        self._asked_at = now
        finished = rendezvous.is_finished(leader, self._job)
        if finished is not None:
            self._silent_since = None
            return finished
        self._silent_since = self._silent_since or now
        return now - self._silent_since > _LEADER_GONE_S

    def finish(self) -> None:
        """This task is over; if it is rank 0's, those who ask are told."""
        if self._leader is not None:
            self._leader.finish()

    def close(self) -> None:
        if self._leader is not None:
            self._leader.close()
