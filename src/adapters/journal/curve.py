"""The loss as a picture, with the extra ``glm3[curves]``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from glm3.adapters.journal.metrics import read_records
from glm3.domain.atomic_write import staged_file
from glm3.domain.errors import BackendError
from glm3.domain.positional_io import storage_errors
from glm3.domain.training.run_events import RunEvent, RunStarted, StepDone

__all__ = ["CurveJournal", "require_matplotlib"]


def require_matplotlib() -> None:
    """Check that matplotlib is installed.

    Raises:
        BackendError: it is not.
    """
    if find_spec("matplotlib") is None:
        raise BackendError("matplotlib is not installed", hint="pip install 'glm3[curves]'")


class CurveJournal:
    """Draw loss and learning rate over the steps into ``path`` when the run ends.

    The steps before a resumption come from the ``metrics.jsonl`` beside it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._points: list[tuple[int, float, float]] = []

    def record(self, event: RunEvent) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`."""
        match event:
            case RunStarted():
                before = read_records(self._path.with_name("metrics.jsonl")) if event.steps_done else ()
                self._points = [
                    (record["step"], record["loss"], record["learning_rate"])
                    for record in before
                    if record.get("loss") is not None and record["step"] <= event.steps_done
                ]
            case StepDone():
                report = event.report
                self._points.append((event.step, report.loss, report.learning_rate))
            case _:
                pass

    def close(self) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`."""
        if not self._points:
            return
        from matplotlib.figure import Figure

        steps, losses, rates = zip(*self._points, strict=True)
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        left = figure.add_subplot()
        left.plot(steps, losses, label="loss")
        left.set_xlabel("step")
        left.set_ylabel("loss")
        right = left.twinx()
        right.plot(steps, rates, color="tab:gray", linestyle=":")
        right.set_ylabel("learning rate")
        self._points = []
        with staged_file(self._path) as place, storage_errors(self._path):
            figure.savefig(place, format="png", dpi=120)
