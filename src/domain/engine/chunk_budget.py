"""How many prompt tokens one call of the model may compute."""

from __future__ import annotations

__all__ = ["ChunkBudget"]

_SMALLEST = 16
_FIRST_GUESS = 32
_PATIENCE = 4.0  # times as long where no answer waits: cancellations and newcomers still do
_WEIGHT = 0.3  # of the newest measurement


class ChunkBudget:
    """Learn the model's prefill speed, and cut prompts so that running answers do not stall.

    Args:
        largest: most tokens of a call.
        step_seconds: how long a call may take while an answer is running; four times that otherwise.
    """

    def __init__(self, largest: int, step_seconds: float) -> None:
        self._largest = largest
        self._step_seconds = step_seconds
        self._tokens_per_second: float | None = None

    def tokens(self, *, answers_run: bool) -> int:
        """Return the prompt tokens the next call may hold."""
        patience = 1.0 if answers_run else _PATIENCE
        if self._tokens_per_second is None:
            return min(int(_FIRST_GUESS * patience), self._largest)
        fitting = int(self._tokens_per_second * self._step_seconds * patience)
        return min(max(fitting, _SMALLEST), self._largest)

    def observe(self, tokens: int, seconds: float) -> None:
        """Take note of a call that computed so many tokens; small ones say little about prompts."""
        if tokens < _SMALLEST or seconds <= 0:
            return
        speed, known = tokens / seconds, self._tokens_per_second
        self._tokens_per_second = speed if known is None else known + _WEIGHT * (speed - known)
