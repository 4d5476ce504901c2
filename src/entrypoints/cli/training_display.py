"""Show a training run as it goes: a live bar at a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from glm3.domain.training.run_events import (
    CheckpointSaved,
    EvaluationDone,
    RunEnded,
    RunEvent,
    RunFailed,
    RunNote,
    RunStarted,
    StepDone,
)
from glm3.entrypoints.cli.output import note
from glm3.entrypoints.cli.progress import PLAIN_SECONDS

if TYPE_CHECKING:
    from glm3.domain.ports.run_journal import RunJournal

__all__ = ["LiveDisplay", "PlainDisplay", "training_display"]


def training_display(*, quiet: bool = False) -> RunJournal:
    """Return what fits standard error: nothing if ``quiet``, a bar at a terminal, else lines."""
    if not quiet and sys.stderr.isatty():
        return LiveDisplay()
    return PlainDisplay(quiet=quiet)


class PlainDisplay:
    """Print a line at the first and the last step and every few seconds between them.

    With ``quiet`` only notes are printed.
    """

    def __init__(self, *, quiet: bool = False, seconds: float = PLAIN_SECONDS) -> None:
        self._quiet, self._seconds = quiet, seconds
        self._total = 0
        self._last = 0.0

    def record(self, event: RunEvent) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`."""
        match event:
            case RunNote():
                note(f"note: {event.text}")
            case RunStarted() if not self._quiet:
                self._total = event.total_steps
                for fact in event.facts:
                    note(fact)
            case StepDone() if not self._quiet:
                now = time.monotonic()
                if not self._last or event.step == self._total or now - self._last >= self._seconds:
                    self._last = now
                    note(step_text(event, self._total))
            case EvaluationDone() if not self._quiet:
                note(evaluation_text(event))
            case _:
                pass

    def close(self) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`."""


class LiveDisplay:
    """Draw a bar with loss, learning rate, speed and remaining time; what stays is printed above it."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._task: Any = None

    def record(self, event: RunEvent) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`."""
        match event:
            case RunStarted():
                self._start(event)
            case StepDone():
                report = event.report
                self._bars.update(
                    self._task,
                    completed=event.step,
                    loss=f"{report.loss:.4f}",
                    rate=f"{report.learning_rate:.2e}",
                    speed=f"{event.tokens_per_second:.0f}",
                    left=time.strftime("%H:%M:%S", time.gmtime(event.remaining)),
                )
            case EvaluationDone():
                self._bars.console.print(evaluation_text(event), highlight=False)
            case CheckpointSaved() if event.path.suffix == ".ckpt" and "-network" not in event.path.name:
                self._bars.console.print(f"saved {event.path}", highlight=False)
            case RunNote():
                note(f"note: {event.text}")
            case RunEnded() | RunFailed():
                self.close()
            case _:
                pass

    def close(self) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _start(self, event: RunStarted) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        for fact in event.facts:
            note(fact)
        self._bars = Progress(
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}  lr {task.fields[rate]}"),
            TextColumn("{task.fields[speed]} tokens/s  {task.fields[left]} left"),
            console=Console(stderr=True),
        )
        self._bars.start()
        self._task = self._bars.add_task(
            "",
            total=event.total_steps,
            completed=event.steps_done,
            loss="-",
            rate="-",
            speed="-",
            left="compiling",
        )


def step_text(event: StepDone, total: int) -> str:
    """Return the plain line of a step."""
    remaining = time.strftime("%H:%M:%S", time.gmtime(event.remaining))
    return (
        f"step {event.step}/{total}  loss {event.report.loss:.4f}  lr {event.report.learning_rate:.2e}  "
        f"{event.tokens_per_second:.0f} tokens/s  {remaining} left"
    )


def evaluation_text(event: EvaluationDone) -> str:
    """Return the line of an evaluation."""
    scores = "  ".join(f"{name} {score:.4f}" for name, score in event.scores.items())
    return f"evaluation after step {event.step}: {scores}{'  (best so far)' if event.best else ''}"
