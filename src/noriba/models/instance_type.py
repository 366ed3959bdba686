"""A size of node, such as ``Standard_DS3_v2``."""

from __future__ import annotations

import msgspec


class InstanceType(msgspec.Struct, frozen=True, kw_only=True):
    """``vcpus`` and ``gpus`` are counts, prices US dollars per hour of one node. Quota is counted by ``family``.

    Without a spot price of its own (``has_spot_price`` false) a size costs the same in both tiers.
    """

    name: str
    family: str
    vcpus: int
    memory_gib: float
    gpus: int = 0
    gpu_model: str = ""
    disk_gib: float = 0.0
    price_per_hour: float
    spot_price_per_hour: float
    has_spot_price: bool = True
