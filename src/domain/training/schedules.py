"""Learning rate by optimizer step. Names and formulas are those of MindFormers' ``lr_schedule`` types.

All of them warm up linearly and stay at their last value after ``total_steps``; MindFormers' own polynomial
decay runs on below its end, even below zero, when training goes on longer than planned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from attrs import frozen

from glm3.domain.errors import InvalidInputError

__all__ = ["SCHEDULE_TYPES", "LearningRateSchedule"]


@frozen(kw_only=True)
class LearningRateSchedule:
    """Give the learning rate of each step.

    Args:
        type: one of :data:`SCHEDULE_TYPES`.
        learning_rate: the peak, reached at the end of the warm-up.
        total_steps: optimizer steps of the whole run, warm-up included.
        lr_end: where cosine and polynomial end; the polynomial's must lie below ``learning_rate``.
        warmup_steps: steps that rise linearly from ``warmup_lr_init``.
        num_cycles: of the cosine; half a wave falls once. ``power`` is the polynomial's.

    Raises:
        InvalidInputError: a value breaks these rules.
    """

    type: str = "polynomial"
    learning_rate: float = 1e-4
    total_steps: int = 1
    lr_end: float = 1e-6
    warmup_steps: int = 0
    warmup_lr_init: float = 0.0
    num_cycles: float = 0.5
    power: float = 1.0

    def __attrs_post_init__(self) -> None:
        def require(met: bool, name: str, expected: str) -> None:
            if not met:
                raise InvalidInputError(
                    "invalid learning-rate schedule", field=name, expected=expected, found=getattr(self, name)
                )

        require(self.type in SCHEDULE_TYPES, "type", ", ".join(SCHEDULE_TYPES))
        require(self.learning_rate >= 0, "learning_rate", "at least 0")
        require(self.total_steps >= 1, "total_steps", "at least 1")
        require(0 <= self.warmup_steps <= self.total_steps, "warmup_steps", f"0 to {self.total_steps}")
        require(self.power > 0, "power", "above 0")
        if self.type == "polynomial":
            require(0 <= self.lr_end < self.learning_rate, "lr_end", f"below {self.learning_rate}")

    def __call__(self, step: int) -> float:
        """Return the learning rate of optimizer step ``step``, counted from 0."""
        if step < self.warmup_steps:
            rise = step / self.warmup_steps
            return self.warmup_lr_init + (self.learning_rate - self.warmup_lr_init) * rise
        span = self.total_steps - self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / span) if span else 1.0
        return _SHAPES[self.type](self, progress)


def _constant(schedule: LearningRateSchedule, _: float) -> float:
    return schedule.learning_rate


def _linear(schedule: LearningRateSchedule, progress: float) -> float:
    return schedule.learning_rate * (1.0 - progress)


def _cosine(schedule: LearningRateSchedule, progress: float) -> float:
    wave = 0.5 * (1.0 + math.cos(2.0 * math.pi * schedule.num_cycles * progress))
    return schedule.lr_end + (schedule.learning_rate - schedule.lr_end) * max(0.0, wave)


def _cosine_with_restarts(schedule: LearningRateSchedule, progress: float) -> float:
    if progress >= 1.0:
        return schedule.lr_end
    wave = 0.5 * (1.0 + math.cos(math.pi * ((schedule.num_cycles * progress) % 1.0)))
    return schedule.lr_end + (schedule.learning_rate - schedule.lr_end) * max(0.0, wave)


def _polynomial(schedule: LearningRateSchedule, progress: float) -> float:
    remaining: float = (1.0 - progress) ** schedule.power
    return schedule.lr_end + (schedule.learning_rate - schedule.lr_end) * remaining


_SHAPES: Mapping[str, Callable[[LearningRateSchedule, float], float]] = {
    "constant_with_warmup": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "polynomial": _polynomial,
}

SCHEDULE_TYPES = tuple(_SHAPES)
