"""Computes and sizes through the unmodified SDK."""

from __future__ import annotations

import pytest
from azure.ai.ml import MLClient
from azure.core.exceptions import ResourceNotFoundError

pytestmark = pytest.mark.sdk


def test_there_are_no_clusters_to_care_for(ml_client: MLClient) -> None:
    assert list(ml_client.compute.list()) == []
    with pytest.raises(ResourceNotFoundError, match="serverless"):
        ml_client.compute.get("cpu-cluster")


def test_sizes_are_listed(ml_client: MLClient) -> None:
    sizes = {size.name: size for size in ml_client.compute.list_sizes()}
    assert sizes["Standard_NC24"].gpus == 4
    assert "Standard_DS3_v2" in {
        size.name for size in ml_client.compute.list_sizes(compute_type="AmlCompute")
    }
