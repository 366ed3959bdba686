"""Which size a job gets when it names none (product.md R3, architecture.md Scheduling 2).

The least expected cost among the sizes that meet the need; ties go to the smaller name, so that the answer is
always the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from noriba.models.instance_type import InstanceType


class SizeNeed(msgspec.Struct, frozen=True, kw_only=True):
    """The least a job needs. The default suits a training script on tabular data: enough memory for a data frame
    of a few GB, some cores for the library's threads, disk for an environment and its data."""

    gpus: int = 0
    vcpus: int = 4
    memory_gib: float = 14.0
    disk_gib: float = 28.0


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A size that was looked at: ``rejected`` says why it is out, empty for those that fit."""

    name: str
    price_per_hour: float
    rejected: str = ""


def rank_sizes(sizes: Iterable[InstanceType], need: SizeNeed, *, spot: bool = False) -> list[Candidate]:
    """All sizes, the best first and the rejected ones last, each with its price at the tier and reason."""
    fitting: list[Candidate] = []
    rejected: list[Candidate] = []
    for size in sizes:
        price = size.spot_price_per_hour if spot else size.price_per_hour
        reason = _why_not(size, need)
        (rejected if reason else fitting).append(
            Candidate(name=size.name, price_per_hour=price, rejected=reason)
        )
    fitting.sort(key=lambda candidate: (candidate.price_per_hour, candidate.name))
    rejected.sort(key=lambda candidate: (candidate.price_per_hour, candidate.name))
    return fitting + rejected


def _why_not(size: InstanceType, need: SizeNeed) -> str:
    if need.gpus == 0 and size.gpus > 0:
        return "has GPUs, which the job does not ask for"
    if size.gpus < need.gpus:
        return f"has {size.gpus} GPUs, the job needs {need.gpus}"
    if size.vcpus < need.vcpus:
        return f"has {size.vcpus} vCPUs, the job needs {need.vcpus}"
    if size.memory_gib < need.memory_gib:
        return f"has {size.memory_gib:g} GiB of memory, the job needs {need.memory_gib:g}"
    if size.disk_gib < need.disk_gib:
        return f"has {size.disk_gib:g} GiB of disk, the job needs {need.disk_gib:g}"
    return ""
