from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import InvalidInputError
from glm3.domain.training.schedules import SCHEDULE_TYPES, LearningRateSchedule

schedules = st.builds(
    LearningRateSchedule,
    type=st.sampled_from(SCHEDULE_TYPES),
    learning_rate=st.floats(1e-5, 1e-2),
    total_steps=st.integers(11, 500),
    lr_end=st.floats(0, 9e-6),
    warmup_steps=st.integers(0, 10),
)


def test_polynomial_follows_the_model_cards_formula() -> None:
    schedule = LearningRateSchedule(type="polynomial", learning_rate=1e-4, lr_end=1e-6, total_steps=100)
    assert schedule(0) == pytest.approx(1e-4)
    assert schedule(50) == pytest.approx(1e-6 + (1e-4 - 1e-6) * 0.5)
    assert schedule(100) == pytest.approx(1e-6)


def test_cosine_and_linear_at_a_quarter() -> None:
    cosine = LearningRateSchedule(type="cosine", learning_rate=1.0, lr_end=0.1, total_steps=400)
    assert cosine(100) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    linear = LearningRateSchedule(type="linear", learning_rate=1.0, total_steps=400)
    assert linear(100) == pytest.approx(0.75)


def test_restarts_begin_again_at_the_peak() -> None:
    schedule = LearningRateSchedule(
        type="cosine_with_restarts", learning_rate=1.0, lr_end=0.0, total_steps=100, num_cycles=2
    )
    assert schedule(0) == schedule(50) == pytest.approx(1.0)
    assert schedule(49) < 0.01


@given(schedule=schedules, beyond=st.integers(0, 10_000))
def test_after_the_end_the_rate_stays(schedule: LearningRateSchedule, beyond: int) -> None:
    assert schedule(schedule.total_steps + beyond) == schedule(schedule.total_steps) >= 0


@given(schedule=schedules)
def test_warm_up_rises_linearly_to_the_peak(schedule: LearningRateSchedule) -> None:
    rates = [schedule(step) for step in range(schedule.warmup_steps)]
    assert rates == pytest.approx(
        [schedule.learning_rate * step / schedule.warmup_steps for step in range(len(rates))]
    )
    assert schedule(schedule.warmup_steps) == pytest.approx(schedule.learning_rate)


@given(schedule=schedules, step=st.integers(0, 1000))
def test_rates_never_leave_their_range(schedule: LearningRateSchedule, step: int) -> None:
    assert 0 <= schedule(step) <= schedule.learning_rate * (1 + 1e-9)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": "exponential"}, "type"),
        ({"learning_rate": 1e-6, "lr_end": 1e-5}, "lr_end"),
        ({"warmup_steps": 11, "total_steps": 10}, "warmup_steps"),
        ({"total_steps": 0}, "total_steps"),
        ({"power": 0.0}, "power"),
    ],
)
def test_bad_values_are_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        LearningRateSchedule(**changes)  # type: ignore[arg-type]
    assert caught.value.field == field
