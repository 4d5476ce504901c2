"""When the demo trains with two ranks, and when it says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from attrs import evolve

from glm3.adapters.memory.host import FakeHost
from glm3.entrypoints.cli import demo_training, evaluate, finetune, launching
from glm3.entrypoints.cli.demo_training import lacking, teach
from glm3.entrypoints.cli.settings import Settings

GB = 1_000_000_000


@pytest.mark.parametrize(
    ("cores", "free", "told"),
    [
        (2, 2 * GB, None),
        (1, 9 * GB, "one core"),
        (2, 2 * GB - 1, "2 ranks take 2.0 GB"),
    ],
)
def test_two_ranks_need_two_cores_and_twice_the_memory(cores, free, told):
    facts = evolve(FakeHost().facts(), cores=cores, memory_available=free)
    found = lacking(facts, GB)
    assert found is None if told is None else told in str(found)


class TrainedAloneError(Exception):
    pass


@pytest.fixture
def taught(tmp_path, monkeypatch) -> Callable[[int, str | None], Path]:
    """A training whose launcher returns a code, on a machine that may lack something."""

    def trained_alone(*_: object, **__: object) -> None:
        raise TrainedAloneError

    def start(code: int, reason: str | None) -> Path:
        monkeypatch.setattr(evaluate, "run_evaluation", lambda *_, **__: None)
        monkeypatch.setattr(demo_training, "lacking", lambda *_: reason)
        monkeypatch.setattr(launching, "run_launch", lambda *_: code)
        monkeypatch.setattr(finetune, "run_finetune", trained_alone)
        return teach(Settings(), tmp_path)

    return start


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [(0, "too small a machine", "too small a machine"), (1, None, "the ranks did not come to an end")],
)
def test_one_process_trains_where_two_cannot_and_says_why(taught, capsys, code, reason, told):
    with pytest.raises(TrainedAloneError):
        taught(code, reason)
    assert f"in one process: {told}" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 130])
def test_an_interrupted_training_ends_the_demo(taught, code):
    """Of ranks that were asked to end and saved, the launcher says that all is well."""
    with pytest.raises(typer.Exit) as caught:
        taught(code, None)
    assert caught.value.exit_code == 130
