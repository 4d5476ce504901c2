"""What a training run shows on standard error."""

from __future__ import annotations

import pytest

from glm3.domain.ports.training import StepReport
from glm3.domain.training.run_events import EvaluationDone, RunEnded, RunNote, RunStarted, StepDone
from glm3.entrypoints.cli.training_display import LiveDisplay, PlainDisplay, training_display

STARTED = RunStarted(total_steps=3, steps_per_epoch=3, epochs=1, rows_per_step=2, facts=("model: small",))


def step(number: int) -> StepDone:
    return StepDone(
        step=number,
        epoch=1,
        epoch_step=number,
        report=StepReport(2.5, 1.0, 1e-4, False, 1.0, 9),
        mean_loss=2.5,
        seconds=0.1,
        rows_per_second=20.0,
        tokens_per_second=1234.0,
        remaining=62.0,
    )


def test_plain_lines_are_the_first_the_last_and_one_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay(seconds=1000)
    for event in (STARTED, step(1), step(2), step(3)):
        display.record(event)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "model: small",
        "step 1/3  loss 2.5000  lr 1.00e-04  1234 tokens/s  00:01:02 left",
        "step 3/3  loss 2.5000  lr 1.00e-04  1234 tokens/s  00:01:02 left",
    ]


def test_quiet_shows_notes_only(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay(quiet=True)
    for event in (
        STARTED,
        RunNote("3 rows are skipped"),
        step(1),
        EvaluationDone(step=1, scores={}, seconds=1),
    ):
        display.record(event)
    assert capsys.readouterr().err == "note: 3 rows are skipped\n"


def test_the_bar_shows_loss_rate_speed_and_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    display = LiveDisplay()
    for event in (
        STARTED,
        step(2),
        EvaluationDone(step=2, scores={"rouge-l": 31.5}, seconds=1, best=True),
        RunEnded(step=3, seconds=1),
    ):
        display.record(event)
    display.close()
    shown = capsys.readouterr().err
    for part in (
        "2/3",
        "loss 2.5000",
        "1.00e-04",
        "1234 tokens/s",
        "00:01:02 left",
        "rouge-l 31.5000",
        "best",
    ):
        assert part in shown.replace("\x1b[32m", "").replace("\x1b[0m", "")


def test_without_a_terminal_there_is_no_bar() -> None:
    assert isinstance(training_display(), PlainDisplay)
