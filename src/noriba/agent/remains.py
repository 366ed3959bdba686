"""What to do about a task whose shim is gone without a word."""

from __future__ import annotations

import signal
import time

from noriba.agent import processes
from noriba.agent.cgroups import TaskCgroup
from noriba.agent.folder import TaskFolder
from noriba.agent.node import Node
from noriba.agent.transfer.errors import TransferError

_PATIENCE_S = 10.0


class ShimLost(TransferError):
    """The processes of a task are lost; ``reason`` says why as far as can be known."""

    code = "ShimLost"
    user_error = False

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The node lost the job's processes: {reason}. What was left of them has been ended."
        )


def why_lost(folder: TaskFolder) -> str:
    """The likely reason, as a part of a sentence."""
    shim = folder.read_shim()
    if shim is None:
        return "the process that holds them could not start"
    if shim.boot != processes.boot_id():
        return "the machine was restarted"
    return "the process that held them was killed"


def end_remains(node: Node, folder: TaskFolder) -> None:
    """End the shim, if it lives, and whatever belongs to the task's group or carries its mark."""
    shim = folder.shim_at_work()
    if shim is not None:
        processes.end_tree(shim.pid, shim.ticks)
    launch = folder.read_launch()
    group = TaskCgroup(node.cgroups, launch.cgroup) if launch is not None and launch.cgroup else None
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        if group is not None:
            group.kill()
        left = processes.of_tasks_below(folder.root) + (group.pids() if group is not None else [])
        if not left or time.monotonic() > deadline:
            break
        processes.send(left, signal.SIGKILL)
        time.sleep(0.01)
    if group is not None:
        group.remove()
