import pytest

from noriba import catalog
from noriba.models.errors import BadRequest


def test_sizes_are_found_in_any_case() -> None:
    size = catalog.instance_type("STANDARD_nc24")
    assert (size.name, size.vcpus, size.gpus, size.gpu_model) == ("Standard_NC24", 24, 4, "K80")
    assert catalog.instance_types()["standard_nc24"] is size


def test_every_size_is_whole() -> None:
    sizes = catalog.instance_types()
    assert len(sizes) > 100
    for size in sizes.values():
        assert size.vcpus > 0
        assert size.memory_gib > 0
        assert 0 < size.spot_price_per_hour <= size.price_per_hour
        assert (size.gpus > 0) == bool(size.gpu_model)


def test_without_a_spot_price_both_tiers_cost_the_same() -> None:
    size = catalog.instance_type("Standard_ND96isr_H100_v5")
    assert not size.has_spot_price
    assert size.spot_price_per_hour == size.price_per_hour


def test_an_unknown_size_proposes_near_ones() -> None:
    with pytest.raises(BadRequest, match="Did you mean Standard_DS3_v2") as caught:
        catalog.instance_type("Standard_DS3v2")
    assert caught.value.code == "InvalidInstanceType"


def test_callers_can_not_change_the_catalogue() -> None:
    catalog.instance_types().clear()
    assert catalog.instance_types()
