import math
from pathlib import Path

import pytest

from glm3.domain.errors import TrainingError
from glm3.domain.ports.training import StepReport
from glm3.domain.training.log_lines import step_lines
from glm3.domain.training.run_events import RunStarted, StepDone
from glm3.domain.training.run_guard import RowPlace, RunGuard

RUN = RunStarted(total_steps=1790, steps_per_epoch=1790, epochs=1, rows_per_step=4)


def step(number: int, **changes: object) -> StepDone:
    report = StepReport(3.14159, 1.0, 9.9e-05, False, 65536.0, 500)
    values = {
        "step": number,
        "epoch": 1,
        "epoch_step": number,
        "report": report,
        "mean_loss": 3.5,
        "seconds": 0.512,
        "rows_per_second": 7.8125,
        "tokens_per_second": 1500.0,
        "remaining": 920.4,
    }
    return StepDone(**values | changes)


def test_the_lines_are_those_of_mindformers() -> None:
    numbers, progress = step_lines(RUN, step(4), sink=True)
    assert numbers == (
        "{ Epoch:[  1/  1], step:[    4/ 1790], loss: 3.142, per_step_time: 512ms, lr: 9.9e-05, "
        "overflow cond: False, loss_scale: 65536.0"
    )
    assert progress == f"   0.2% |{' ' * 50}| 7.81250 samples/s/p  0:15:20 }}"


def test_without_a_sink_the_mean_is_printed_too() -> None:
    assert "loss:[3.142/3.500], per_step_time" in step_lines(RUN, step(4), sink=False)[0]


@pytest.mark.parametrize(("number", "blocks"), [(895, 25), (1790, 50)])
def test_the_bar_is_fifty_wide(number: int, blocks: int) -> None:
    assert f"|{'█' * blocks}{' ' * (50 - blocks)}|" in step_lines(RUN, step(number), sink=True)[1]


ROWS = [RowPlace(Path("rows.jsonl"), line) for line in (7, 3)]


def report(loss: float = 2.0, *, overflow: bool = False, scale: float = 65536.0) -> StepReport:
    return StepReport(loss, 1.0, 1e-4, overflow, scale, 5)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_and_names_the_rows(loss: float) -> None:
    with pytest.raises(TrainingError) as caught:
        RunGuard().check(9, report(loss), ROWS)
    error = caught.value
    assert (error.path, error.line) == (Path("rows.jsonl"), 7)
    assert "step 9" in error.message
    assert "rows.jsonl:3" in error.message
    assert "MS_ASCEND_CHECK_OVERFLOW_MODE" in str(error.hint)


def test_an_overflow_that_a_smaller_scale_answers_goes_on() -> None:
    guard = RunGuard()
    for scale in (4.0, 2.0, 1.0):
        guard.check(1, report(overflow=True, scale=scale), ROWS)
    guard.check(2, report(scale=1.0), ROWS)
    guard.check(3, report(overflow=True, scale=1.0), ROWS)


def test_a_scale_stuck_at_one_stops() -> None:
    guard = RunGuard()
    guard.check(1, report(overflow=True, scale=1.0), ROWS)
    with pytest.raises(TrainingError, match="floor of 1"):
        guard.check(2, report(overflow=True, scale=1.0), ROWS)
