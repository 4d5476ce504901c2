"""Curves for TensorBoard, with the extra ``glm3[curves]``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from glm3.domain.errors import BackendError
from glm3.domain.training.run_events import EvaluationDone, RunEvent, RunStarted, StepDone

__all__ = ["TensorBoardJournal", "require_tensorboard"]


def require_tensorboard() -> None:
    """Check that tensorboardX is installed.

    Raises:
        BackendError: it is not.
    """
    if find_spec("tensorboardX") is None:
        raise BackendError("tensorboardX is not installed", hint="pip install 'glm3[curves]'")


class TensorBoardJournal:
    """Write scalars of every step and evaluation into ``folder``; a resumed run hides what it replaces."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def record(self, event: RunEvent) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`."""
        match event:
            case RunStarted():
                from tensorboardX import SummaryWriter

                self._writer = SummaryWriter(str(self._folder), purge_step=event.steps_done + 1)
            case StepDone():
                report = event.report
                values = {
                    "loss": report.loss,
                    "learning_rate": report.learning_rate,
                    "grad_norm": report.grad_norm,
                    "loss_scale": report.loss_scale,
                    "tokens_per_second": event.tokens_per_second,
                }
                for name, value in values.items():
                    self._writer.add_scalar(f"train/{name}", value, event.step)
            case EvaluationDone():
                for name, value in event.scores.items():
                    self._writer.add_scalar(f"eval/{name}", value, event.step)
            case _:
                pass

    def close(self) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
