from __future__ import annotations

from glm3.domain.training.loss_scale import DynamicLossScale


def test_an_overflow_halves_and_a_thousand_good_steps_double() -> None:
    scale = DynamicLossScale().after(overflow=True)
    assert scale.value == 32768
    for _ in range(999):
        scale = scale.after(overflow=False)
    assert scale.value == 32768
    assert scale.after(overflow=False).value == 65536


def test_an_overflow_begins_the_count_of_good_steps_again() -> None:
    scale = DynamicLossScale(value=8.0, window=3)
    scale = scale.after(overflow=False).after(overflow=False).after(overflow=True)
    assert scale.after(overflow=False).after(overflow=False).value == 4.0


def test_it_stops_at_one_and_says_so() -> None:
    scale = DynamicLossScale(value=2.0)
    assert not scale.stuck
    scale = scale.after(overflow=True)
    assert scale.stuck
    assert scale.after(overflow=True).value == 1.0
