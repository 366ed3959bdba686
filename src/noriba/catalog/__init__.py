"""The catalogue of sizes (architecture.md, decision 8)."""

from __future__ import annotations

import csv
import difflib
from functools import cache
from importlib import resources
from types import MappingProxyType

from noriba.models.errors import BadRequest
from noriba.models.instance_type import InstanceType


@cache
def _built_in() -> MappingProxyType[str, InstanceType]:
    text = resources.files(__name__).joinpath("data/instance_types.csv").read_text("utf-8")
    sizes = (_instance_type(row) for row in csv.DictReader(text.splitlines()))
    return MappingProxyType({size.name.lower(): size for size in sizes})


def instance_types() -> dict[str, InstanceType]:
    """All sizes by their name in lower case, in the catalogue's order."""
    return dict(_built_in())


def instance_type(name: str) -> InstanceType:
    """The size with that name, in any case. Raises BadRequest (``InvalidInstanceType``) that proposes near names."""
    sizes = _built_in()
    found = sizes.get(name.lower())
    if found is None:
        near = [sizes[key].name for key in difflib.get_close_matches(name.lower(), sizes, n=3, cutoff=0.5)]
        proposal = (
            f"Did you mean {' or '.join(near)}?" if near else "Leave instance_type out to have one chosen."
        )
        raise BadRequest(
            f"There is no size '{name}'. {proposal}", code="InvalidInstanceType", target="instanceType"
        )
    return found


def _instance_type(row: dict[str, str]) -> InstanceType:
    price, spot = float(row["price_per_hour"]), row["spot_price_per_hour"]
    return InstanceType(
        name=row["name"],
        family=row["family"],
        vcpus=int(row["vcpus"]),
        memory_gib=float(row["memory_gib"]),
        gpus=int(row["gpus"] or 0),
        gpu_model=row["gpu_model"],
        disk_gib=float(row["disk_gib"]),
        price_per_hour=price,
        spot_price_per_hour=float(spot) if spot else price,
        has_spot_price=bool(spot),
    )
