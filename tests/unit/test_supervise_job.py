"""A job is watched until all of it is gone, whatever its processes do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from glm3.adapters.memory.process_runner import FakeProcessRunner, Script
from glm3.application.supervise_job import JobSupervisor
from glm3.domain.errors import MissingFileError
from glm3.domain.launching.job import Job, JobResult, Patience
from glm3.domain.ports.process_runner import Order, ProcessSpec

FOREVER = Script(code=None)
DEAF = Script(code=None, answers={})


class Run:
    """One supervised job of scripts, by name; those called ``scheduler`` are helpers."""

    def __init__(self, scripts: Mapping[str, Script], **patience: Any) -> None:
        self.runner = FakeProcessRunner(scripts)
        self.shown: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.supervisor = JobSupervisor(
            runner=self.runner,
            clock=self.runner.clock,
            show=lambda name, text: self.shown.append((name, text)),
            note=self.notes.append,
            patience=Patience(**patience),
        )
        specs = {name: ProcessSpec(name=name, command=(name,)) for name in scripts}
        helper = specs.pop("scheduler", None)
        self.job = Job(members=tuple(specs.values()), helpers=(helper,) if helper else ())

    def result(self) -> JobResult:
        return self.supervisor.run(self.job)

    def orders(self, name: str) -> list[tuple[float, Order]]:
        return [(at, order) for at, who, order in self.runner.orders if who == name]


def test_a_job_that_ends_well_shows_its_lines_and_ends_its_scheduler():
    run = Run({"a": Script(lines=("x", "y"), after=5), "b": Script(lines=("z",), after=6), "scheduler": DEAF})
    result = run.result()
    assert (result.exit_code, result.failure, result.interrupted) == (0, None, False)
    assert run.shown == [("a", "x"), ("a", "y"), ("b", "z")]
    assert run.orders("scheduler") == [(6, Order.KILL)]
    assert [spec.name for spec in run.runner.started] == ["scheduler", "a", "b"]


def test_one_failure_ends_the_others_and_is_the_one_told():
    run = Run({"a": Script(lines=tuple("0123456789" * 3), code=7, after=100), "b": FOREVER, "c": DEAF})
    result = run.result()
    assert result.exit_code == 7
    assert result.failure is not None
    assert (result.failure.name, result.failure.tail) == ("a", tuple("0123456789" * 2))
    assert result.failure.lines()[0] == "a ended with exit code 7; the job was ended"
    assert run.orders("b") == [(100, Order.TERMINATE)]
    assert run.orders("c") == [(100, Order.TERMINATE), (110, Order.KILL)]
    assert result.ending_seconds == 10


def test_what_mindspore_says_while_it_leaves_does_not_push_the_cause_out_of_the_end_of_a_log():
    talk = "[INFO] DISTRIBUTED(7,7f64a19b6c0,python):2026-01-02-03:04:05.006.007 [tcp.cc:3] Start] success!"
    loss = "[ERROR] DISTRIBUTED(7,7f64a19b6c0,python):2026-01-02-03:04:05.006.007 [node.cc:3] Lost]"
    run = Run({"a": Script(lines=("the cause", loss, *[talk] * 30), code=7, after=1)})
    result = run.result()
    assert result.failure is not None
    assert result.failure.tail == ("the cause", loss)
    assert len(run.shown) == 32


def test_a_dead_scheduler_ends_the_job():
    run = Run({"a": FOREVER, "scheduler": Script(code=1, after=3)})
    result = run.result()
    assert result.failure is not None
    assert (result.failure.name, result.exit_code) == ("scheduler", 1)
    assert run.orders("a") == [(3, Order.TERMINATE)]


def test_the_first_interrupt_lets_ranks_finish():
    run = Run({"a": Script(code=None, answers={Order.INTERRUPT: 0}, delay=50), "scheduler": DEAF})
    run.supervisor.interrupt()
    result = run.result()
    assert (result.exit_code, result.interrupted) == (0, True)
    assert [order for _, order in run.orders("a")] == [Order.INTERRUPT]
    assert "again" in run.notes[0]


def test_the_second_interrupt_ends_them():
    run = Run({"a": DEAF, "b": DEAF})
    run.supervisor.interrupt()
    run.supervisor.interrupt()
    result = run.result()
    assert (result.exit_code, result.interrupted) == (130, True)
    assert [order for _, order in run.orders("b")] == [Order.TERMINATE, Order.KILL]
    assert run.runner.now == 0


def test_an_interrupt_after_a_failure_does_not_hide_it():
    run = Run(
        {"a": Script(code=3), "b": Script(code=None, lines=("x",), answers={Order.TERMINATE: 0}, delay=5)}
    )
    run.supervisor.note = lambda text: run.supervisor.interrupt()  # the user reacts to the first message
    result = run.result()
    assert (result.exit_code, result.interrupted) == (3, False)
    assert [order for _, order in run.orders("b")] == [Order.TERMINATE]


def test_terminating_needs_no_second_time():
    run = Run({"a": DEAF})
    run.supervisor.terminate()
    assert run.result().exit_code == 130
    assert run.runner.now == 0


def test_a_rank_that_dies_of_the_interrupt_ends_the_rest():
    run = Run({"a": Script(code=None, delay=1), "b": DEAF})
    run.supervisor.interrupt()
    assert run.result().exit_code == 130
    assert run.orders("b")[-1] == (11, Order.KILL)


def test_a_rank_that_stays_behind_is_named_and_ended():
    run = Run({"a": Script(after=5), "b": FOREVER}, last=60)
    result = run.result()
    assert result.exit_code == 124
    assert result.failure is not None
    assert "b was still running 60 s after" in result.failure.lines()[0]
    assert run.orders("b")[0] == (65, Order.TERMINATE)


def test_a_slow_last_rank_is_waited_for():
    assert Run({"a": Script(after=5), "b": Script(after=1000)}, last=None).result().exit_code == 0


def test_silence_ends_a_job_only_where_asked_for():
    result = Run({"a": Script(lines=("x",), code=None), "b": FOREVER}, silence=30).result()
    assert result.failure is not None
    assert "hangs: no line of a, b for 30 s" in result.failure.lines()[0]
    assert Run({"a": Script(after=1000)}).result().exit_code == 0


def test_what_started_is_ended_when_the_next_does_not_start():
    run = Run({"a": DEAF, "b": DEAF})
    run.job = Job(members=(*run.job.members, ProcessSpec(name="c", command=("nothing",))))
    with pytest.raises(MissingFileError):
        run.result()
    assert run.orders("a") == run.orders("b") == [(0, Order.KILL)]


def test_an_error_while_showing_lines_leaves_nothing_running():
    run = Run({"a": Script(lines=("x",), code=None, answers={})})

    def broken(name: str, text: str) -> None:
        raise BrokenPipeError

    run.supervisor.show = broken
    with pytest.raises(BrokenPipeError):
        run.result()
    assert run.orders("a") == [(0, Order.KILL)]
