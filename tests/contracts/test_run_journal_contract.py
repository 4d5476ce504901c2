"""What every run journal does: it takes all events of a run, a resumption, and being closed twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from glm3.adapters.journal.files import FileJournal
from glm3.adapters.memory.journal import MemoryJournal
from glm3.application.journals import Journals
from glm3.domain.ports.run_journal import RunJournal
from glm3.domain.ports.training import StepReport
from glm3.domain.training.run_events import (
    CheckpointSaved,
    EvaluationDone,
    RunEnded,
    RunFailed,
    RunNote,
    RunStarted,
    StepDone,
)
from glm3.entrypoints.cli.training_display import LiveDisplay, PlainDisplay

JOURNALS: dict[str, Callable[[Path], RunJournal]] = {
    "files": FileJournal,
    "memory": lambda _: MemoryJournal(),
    "plain": lambda _: PlainDisplay(),
    "live": lambda _: LiveDisplay(),
    "several": lambda folder: Journals((FileJournal(folder), MemoryJournal())),
}


def step(number: int) -> StepDone:
    return StepDone(
        step=number,
        epoch=1,
        epoch_step=number,
        report=StepReport(2.5, float("inf"), 1e-4, True, 2.0, 9),
        mean_loss=2.5,
        seconds=0.0,
        rows_per_second=0.0,
        tokens_per_second=0.0,
        remaining=0.0,
    )


def started(steps_done: int = 0) -> RunStarted:
    return RunStarted(
        total_steps=3, steps_per_epoch=3, epochs=1, rows_per_step=2, steps_done=steps_done, facts=("small",)
    )


@pytest.fixture(params=JOURNALS)
def open_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], RunJournal]:
    return lambda: JOURNALS[request.param](tmp_path)


def test_a_run_from_its_start_to_its_end(open_journal: Callable[[], RunJournal], tmp_path: Path) -> None:
    journal = open_journal()
    for event in (
        started(),
        RunNote("a note"),
        step(1),
        CheckpointSaved(step=1, path=tmp_path / "x-1_1.ckpt", nbytes=9, seconds=0.1),
        EvaluationDone(step=1, scores={"loss": 2.0}, seconds=1.0, best=True),
        step(2),
        RunEnded(step=2, seconds=3.0, summary=("done",)),
    ):
        journal.record(event)
    journal.close()
    journal.close()


def test_a_run_that_fails_and_goes_on(open_journal: Callable[[], RunJournal]) -> None:
    first = open_journal()
    for event in (started(), step(1), RunFailed(1, "the loss is NaN")):
        first.record(event)
    first.close()
    second = open_journal()
    for event in (started(1), step(2), RunEnded(step=2, seconds=1.0)):
        second.record(event)
    second.close()


def test_closing_what_has_seen_nothing_is_allowed(open_journal: Callable[[], RunJournal]) -> None:
    open_journal().close()
