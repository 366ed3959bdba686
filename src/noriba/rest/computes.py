"""Computes and sizes, as far as a serverless service has them (wire.md 6)."""

from __future__ import annotations

from typing import Any

from noriba.catalog import instance_types
from noriba.models.errors import NotFound
from noriba.models.instance_type import InstanceType
from noriba.rest.call import Call
from noriba.rest.documents import PROVIDER
from noriba.rest.router import WORKSPACE, Routes

routes = Routes()

_LOCATION = f"/subscriptions/{{sub}}/providers/{PROVIDER}/locations/{{location}}"


@routes.get(WORKSPACE + "/computes")
async def list_computes(call: Call) -> Any:
    """The workspace's clusters: it has none, jobs run serverless."""
    return {"value": []}


@routes.get(WORKSPACE + "/computes/{name}")
async def get_compute(call: Call) -> Any:
    """A cluster of the workspace."""
    raise NotFound(
        f"There is no compute '{call.params['name']}' in this workspace. Leave compute out, or set it to "
        "'serverless', to run without one.",
        code="ComputeNotFound",
        target="compute",
    )


@routes.get(f"{_LOCATION}/vmSizes")
async def list_sizes(call: Call) -> Any:
    """The catalogue of sizes. Different clients read it under different keys."""
    sizes = [_size_document(size) for size in instance_types().values()]
    return {"value": sizes, "amlCompute": sizes}


def _size_document(size: InstanceType) -> dict[str, Any]:
    prices = [{"retailPrice": size.price_per_hour, "osType": "Linux", "vmTier": "Standard"}]
    if size.has_spot_price:
        prices.append({"retailPrice": size.spot_price_per_hour, "osType": "Linux", "vmTier": "LowPriority"})
    return {
        "name": size.name,
        "family": size.family,
        "vCPUs": size.vcpus,
        "gpus": size.gpus,
        "memoryGB": size.memory_gib,
        "osVhdSizeMB": 0,
        "maxResourceVolumeMB": int(size.disk_gib * 1024),
        "lowPriorityCapable": size.has_spot_price,
        "premiumIO": False,
        "supportedComputeTypes": ["AmlCompute"],
        "estimatedVMPrices": {"billingCurrency": "USD", "unitOfMeasure": "OneHour", "values": prices},
    }
