"""The dynamic loss scale that keeps float16 gradients representable."""

from __future__ import annotations

from attrs import evolve, frozen

__all__ = ["DynamicLossScale"]


@frozen
class DynamicLossScale:
    """Halve on overflow, never below 1; double after ``window`` good steps in a row.

    Source: MindSpore's ``DynamicLossScaleUpdateCell`` (65536, 2, 1000 in the model card's files).
    """

    value: float = 65536.0
    factor: float = 2.0
    window: int = 1000
    good_steps: int = 0

    def after(self, *, overflow: bool) -> DynamicLossScale:
        """Return the scale of the next step."""
        if overflow:
            return evolve(self, value=max(self.value / self.factor, 1.0), good_steps=0)
        if self.good_steps + 1 >= self.window:
            return evolve(self, value=self.value * self.factor, good_steps=0)
        return evolve(self, good_steps=self.good_steps + 1)

    @property
    def stuck(self) -> bool:
        """At its floor: another overflow cannot be answered by a smaller scale."""
        return self.value <= 1.0
