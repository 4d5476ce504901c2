"""Stop a run at the step at which it stops making sense, and say which rows were in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from attrs import define, frozen

from glm3.domain.errors import TrainingError
from glm3.domain.ports.training import StepReport

__all__ = ["OVERFLOW_ADVICE", "RowPlace", "RunGuard", "named_rows"]

OVERFLOW_ADVICE = (
    'on Ascend set MS_ASCEND_CHECK_OVERFLOW_MODE="INFNAN_MODE" and start again; '
    "or lower lr_schedule.learning_rate, or train in bfloat16 or float32 (model.model_config.compute_dtype)"
)
"""The model card's answer to a loss that does not fall and to ``overflow_cond=True``, and what else helps."""

_NAMED = 8


@frozen
class RowPlace:
    """Where a row of a data set stands; lines count from 1."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@define
class RunGuard:
    """Judge each step. ``overflows_at_floor`` counts those in a row that no smaller scale can answer."""

    overflows_at_floor: int = 0

    def check(self, step: int, report: StepReport, rows: Sequence[RowPlace]) -> None:
        """Let step ``step`` (from 1) pass, or stop.

        One overflow at a scale of 1 may be the one that brought it there; a second one in a row is final.

        Raises:
            TrainingError: the loss is NaN or infinite, or the loss scale is stuck at 1.
        """
        if not math.isfinite(report.loss):
            kind = "NaN" if math.isnan(report.loss) else "infinite"
            raise _stopped(f"the loss of step {step} is {kind}", rows, found=report.loss)
        at_floor = report.overflow and report.loss_scale <= 1
        self.overflows_at_floor = self.overflows_at_floor + 1 if at_floor else 0
        if self.overflows_at_floor > 1:
            raise _stopped(
                f"the gradients of step {step} overflow and the loss scale is at its floor of 1", rows
            )


def named_rows(rows: Sequence[RowPlace]) -> str:
    """Return where the rows of a step stand, cut to a readable number."""
    named = ", ".join(map(str, rows[:_NAMED]))
    return named if len(rows) <= _NAMED else f"{named} and {len(rows) - _NAMED} more"


def _stopped(message: str, rows: Sequence[RowPlace], found: object = None) -> TrainingError:
    first = rows[0] if rows else None
    return TrainingError(
        f"{message}; its rows: {named_rows(rows)}" if rows else message,
        path=first.path if first else None,
        line=first.line if first else None,
        found=found,
        hint=OVERFLOW_ADVICE,
    )
