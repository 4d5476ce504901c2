"""What happens in a training run, as records: the journal's files and the live display are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from glm3.domain.ports.training import StepReport

__all__ = [
    "CheckpointSaved",
    "EvaluationDone",
    "RunEnded",
    "RunEvent",
    "RunFailed",
    "RunNote",
    "RunStarted",
    "StepDone",
]


@frozen(kw_only=True)
class RunStarted:
    """A run begins, or goes on behind ``steps_done`` steps. ``facts`` are for people to read."""

    total_steps: int
    steps_per_epoch: int
    epochs: int
    rows_per_step: int
    steps_done: int = 0
    rank: int = 0
    world_size: int = 1
    facts: tuple[str, ...] = ()


@frozen(kw_only=True)
class StepDone:
    """One optimizer step. ``step`` counts from 1 over the whole run, ``epoch`` and ``epoch_step`` from 1.

    ``mean_loss`` is that of the epoch so far. ``tokens_per_second`` counts positions, padding included, over
    all ranks; ``rows_per_second`` is one rank's. ``remaining`` is in seconds.
    """

    step: int
    epoch: int
    epoch_step: int
    report: StepReport
    mean_loss: float
    seconds: float
    rows_per_second: float
    tokens_per_second: float
    remaining: float


@frozen(kw_only=True)
class EvaluationDone:
    """Scores on the evaluation rows after ``step`` steps."""

    step: int
    scores: Mapping[str, float]
    seconds: float
    best: bool = False


@frozen(kw_only=True)
class CheckpointSaved:
    """A file or folder was published."""

    step: int
    path: Path
    nbytes: int
    seconds: float


@frozen
class RunNote:
    """Something the user should know and need not act on at once."""

    text: str


@frozen
class RunFailed:
    """The run stops before its end, after ``step`` steps."""

    step: int
    reason: str


@frozen(kw_only=True)
class RunEnded:
    """The run is complete; ``summary`` is for people to read."""

    step: int
    seconds: float
    summary: tuple[str, ...] = ()


RunEvent = RunStarted | StepDone | EvaluationDone | CheckpointSaved | RunNote | RunFailed | RunEnded
