"""The journal's files: what they hold, and that they can be gone on from."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from glm3.adapters.journal.curve import CurveJournal, require_matplotlib
from glm3.adapters.journal.files import FileJournal
from glm3.adapters.journal.metrics import STEP_COLUMNS
from glm3.adapters.journal.tensorboard import TensorBoardJournal, require_tensorboard
from glm3.domain.errors import BackendError, StorageError
from glm3.domain.ports.training import StepReport
from glm3.domain.training.run_events import EvaluationDone, RunFailed, RunNote, RunStarted, StepDone


def started(steps_done: int = 0) -> RunStarted:
    return RunStarted(total_steps=9, steps_per_epoch=3, epochs=3, rows_per_step=2, steps_done=steps_done)


def done(step: int, norm: float = 1.0) -> StepDone:
    return StepDone(
        step=step,
        epoch=1,
        epoch_step=step,
        report=StepReport(1.0 / step, norm, 0.1, not math.isfinite(norm), 2.0, 4),
        mean_loss=0.5,
        seconds=0.1,
        rows_per_second=20.0,
        tokens_per_second=200.0,
        remaining=1.0,
    )


def write(folder: Path, *events: object) -> None:
    journal = FileJournal(folder)
    try:
        for event in events:
            journal.record(event)
    finally:
        journal.close()


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_each_step_is_in_both_files_and_in_the_log(tmp_path: Path) -> None:
    write(tmp_path, started(), done(1), done(2))
    assert [record["loss"] for record in records(tmp_path)] == [1.0, 0.5]
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(STEP_COLUMNS)
    assert [float(row["loss"]) for row in rows] == [1.0, 0.5]
    assert (tmp_path / "info.log").read_text().count("Epoch:[") == 2


def test_an_evaluation_is_in_the_json_lines_only(tmp_path: Path) -> None:
    write(tmp_path, started(), done(1), EvaluationDone(step=1, scores={"loss": 2.5}, seconds=1.0))
    assert records(tmp_path)[1] == {"step": 1, "evaluation": {"loss": 2.5}}
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


def test_an_infinite_norm_is_null_in_json(tmp_path: Path) -> None:
    write(tmp_path, started(), done(1, norm=math.inf))
    assert records(tmp_path)[0]["grad_norm"] is None


def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    """Also a line that was cut by the death of the process."""
    write(tmp_path, started(), *map(done, (1, 2, 3)))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    write(tmp_path, started(steps_done=2), *map(done, (3, 4)))
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 4]
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 5


def test_a_new_run_keeps_the_metrics_of_the_one_before(tmp_path: Path) -> None:
    for loss in (1, 2, 3):
        write(tmp_path, started(), done(loss))
    assert {path.name for path in tmp_path.glob("metrics*")} == {
        f"metrics{number}.{kind}" for number in ("", ".1", ".2") for kind in ("jsonl", "csv")
    }
    assert json.loads((tmp_path / "metrics.1.jsonl").read_text())["step"] == 1


def test_errors_are_in_the_error_log_and_notes_are_not(tmp_path: Path) -> None:
    write(tmp_path, started(), RunNote("three rows are cut"), RunFailed(4, "the loss is NaN"))
    assert "NaN" in (tmp_path / "error.log").read_text()
    assert "three rows" not in (tmp_path / "error.log").read_text()
    assert "WARNING - three rows are cut" in (tmp_path / "info.log").read_text()


def test_a_full_disk_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "info.log").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left"):
        write(tmp_path, RunNote("x" * 10_000))


def test_without_its_library_an_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, require in (("tensorboardX", require_tensorboard), ("matplotlib", require_matplotlib)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises((BackendError, ValueError)) as caught:
            require()
        assert name in str(caught.value)


def test_tensorboard_gets_every_step_and_hides_what_a_resumption_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[object, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed",))

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=SummaryWriter))
    journal = TensorBoardJournal(tmp_path)
    for event in (started(2), done(3), EvaluationDone(step=3, scores={"loss": 2.5}, seconds=1.0)):
        journal.record(event)
    journal.close()
    assert written[0] == (str(tmp_path), 3)
    assert ("train/loss", 1 / 3, 3) in written
    assert ("eval/loss", 2.5, 3) in written
    assert written[-1] == ("closed",)


def test_the_curve_has_the_steps_before_a_resumption_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra glm3[curves] is not installed")
    write(tmp_path, started(), *map(done, (1, 2, 3)))
    journal = CurveJournal(tmp_path / "loss.png")
    for event in (started(2), done(3)):
        journal.record(event)
    assert [point[0] for point in journal._points] == [1, 2, 3]
    journal.close()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
