"""The journal of one rank in its log folder: ``info.log``, ``error.log`` and the metrics."""

from __future__ import annotations

import logging
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from glm3.adapters.journal.metrics import MetricsFiles
from glm3.domain.positional_io import storage_errors
from glm3.domain.training.log_lines import step_lines
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

__all__ = ["FileJournal"]

_ROTATE_BYTES, _ROTATE_KEPT = 50 << 20, 5  # as MindFormers rotates its logs
_FORM = "%(asctime)s - %(levelname)s - %(message)s"


class FileJournal:
    """Append to the logs of ``folder``; ``sink`` is the run's sink mode, which shapes the loss in a line.

    Without ``metrics`` there are the lines for people only.
    """

    def __init__(self, folder: Path, *, sink: bool = False, metrics: bool = True) -> None:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._sink, self._measured = folder, sink, metrics
        self._info = _log_file(folder / "info.log")
        self._error = _log_file(folder / "error.log")
        self._started: RunStarted | None = None
        self._metrics: MetricsFiles | None = None

    def record(self, event: RunEvent) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`."""
        match event:
            case RunStarted():
                self._start(event)
            case StepDone():
                self._step(event)
            case EvaluationDone():
                scores = ", ".join(f"{name}: {score:.4f}" for name, score in event.scores.items())
                self._tell(f"evaluation after step {event.step}: {scores} ({event.seconds:.1f} s)")
                self._measure({"step": event.step, "evaluation": dict(event.scores)})
            case CheckpointSaved():
                self._tell(f"saved {event.path} ({event.nbytes} bytes, {event.seconds:.1f} s)")
            case RunNote():
                self._tell(event.text, logging.WARNING)
            case RunFailed():
                self._tell(f"stopped after step {event.step}: {event.reason}", logging.ERROR)
            case RunEnded():
                for line in event.summary:
                    self._tell(line)

    def close(self) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`; what could not be written was reported."""
        for close in (self._info.close, self._error.close, self._close_metrics):
            with suppress(OSError):
                close()

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
        self._metrics = None

    def _start(self, event: RunStarted) -> None:
        self._started = event
        self._close_metrics()
        self._metrics = MetricsFiles(self._folder, event.steps_done) if self._measured else None
        for fact in event.facts:
            self._tell(fact)

    def _step(self, event: StepDone) -> None:
        if self._started is None:
            raise RuntimeError("a step before the run started")
        for line in step_lines(self._started, event, sink=self._sink):
            self._tell(line)
        report = event.report
        self._measure(
            {
                "step": event.step,
                "epoch": event.epoch,
                "loss": report.loss,
                "mean_loss": event.mean_loss,
                "grad_norm": report.grad_norm,
                "learning_rate": report.learning_rate,
                "overflow": report.overflow,
                "loss_scale": report.loss_scale,
                "supervised_tokens": report.supervised_tokens,
                "seconds": event.seconds,
                "tokens_per_second": event.tokens_per_second,
            }
        )

    def _measure(self, record: dict[str, object]) -> None:
        if self._metrics is not None:
            self._metrics.write(record)

    def _tell(self, text: str, level: int = logging.INFO) -> None:
        line = logging.LogRecord("glm3", level, "", 0, text, None, None)
        self._info.handle(line)
        if level >= logging.ERROR:
            self._error.handle(line)


class _LogFile(RotatingFileHandler):
    """Let a full disk be an error of the run, not a traceback on standard error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  # the library's name
        with storage_errors(Path(self.baseFilename)):
            raise  # called while the error is handled


def _log_file(path: Path) -> _LogFile:
    handler = _LogFile(path, maxBytes=_ROTATE_BYTES, backupCount=_ROTATE_KEPT, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORM))
    return handler
