"""The size a job gets when it names none."""

from __future__ import annotations

from noriba.catalog import instance_types
from noriba.scheduler.sizing import SizeNeed, rank_sizes


def test_the_cheapest_that_meets_the_need_wins_and_others_say_why_not() -> None:
    sizes = instance_types()
    ranked = rank_sizes(sizes.values(), SizeNeed())
    best = sizes[ranked[0].name.lower()]
    assert best.gpus == 0
    assert best.vcpus >= 4
    assert best.memory_gib >= 14
    fitting = [candidate for candidate in ranked if not candidate.rejected]
    assert fitting == ranked[: len(fitting)]
    assert [c.price_per_hour for c in fitting] == sorted(c.price_per_hour for c in fitting)
    assert all(candidate.rejected for candidate in ranked[len(fitting) :])


def test_gpus_are_given_only_when_asked_for() -> None:
    sizes = instance_types()
    ranked = rank_sizes(sizes.values(), SizeNeed(gpus=1))
    assert sizes[ranked[0].name.lower()].gpus >= 1


def test_the_answer_does_not_depend_on_the_order() -> None:
    sizes = list(instance_types().values())
    assert rank_sizes(sizes, SizeNeed()) == rank_sizes(reversed(sizes), SizeNeed())
