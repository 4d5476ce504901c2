"""What every ProcessRunner must hold to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glm3.adapters.memory.process_runner import FakeProcessRunner, Script
from glm3.adapters.process.runner import LocalProcessRunner
from glm3.domain.errors import MissingFileError, StorageError
from glm3.domain.ports.process_runner import (
    LineRead,
    Order,
    ProcessEnded,
    ProcessEvent,
    ProcessRunner,
    ProcessSpec,
    Woken,
)
from support.launcher import gone

ADAPTERS = [LocalProcessRunner, FakeProcessRunner]

SPEAK = "import sys; print('one', flush=True); print('zwei 二', file=sys.stderr); sys.exit(7)"
OBEY = """
import time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("bye")
"""
STUBBORN = """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""
OBEDIENCE = {Order.INTERRUPT: 0, Order.TERMINATE: 143}
PROGRAMS = {
    "speak": (SPEAK, Script(lines=("one", "zwei 二"), code=7)),
    "obey": (OBEY, Script(lines=("ready", "bye"), code=None, answers=OBEDIENCE)),
    "stubborn": (STUBBORN, Script(lines=("ready",), code=None, answers={})),
}
ECHO_ORDERS = "import sys\nfor line in sys.stdin: print(line, end='')\nprint('end')"

Make = Callable[[str, str], ProcessSpec]


@pytest.fixture(params=ADAPTERS)
def runner(request: pytest.FixtureRequest) -> Iterator[ProcessRunner]:
    if request.param is FakeProcessRunner:
        yield FakeProcessRunner({name: script for name, (_, script) in PROGRAMS.items()})
        return
    runner = LocalProcessRunner()
    yield runner
    for name in runner._running:
        runner.send(name, Order.KILL)


@pytest.fixture
def spec(runner: ProcessRunner) -> Make:
    def make(name: str, program: str) -> ProcessSpec:
        real = (sys.executable, "-u", "-c", PROGRAMS[program][0])
        return ProcessSpec(name=name, command=(program,) if isinstance(runner, FakeProcessRunner) else real)

    return make


def events(runner: ProcessRunner, timeout: float = 20.0) -> Iterator[ProcessEvent]:
    while (event := runner.next_event(timeout)) is not None:
        yield event


def until(runner: ProcessRunner, kind: type) -> list[ProcessEvent]:
    seen = []
    for event in events(runner):
        seen.append(event)
        if isinstance(event, kind):
            return seen
    raise AssertionError(f"no {kind.__name__} came, only {seen}")


def test_lines_of_both_streams_come_before_the_end(runner: ProcessRunner, spec: Make):
    runner.start(spec("a", "speak"))
    assert until(runner, ProcessEnded) == [
        LineRead("a", "one"),
        LineRead("a", "zwei 二"),
        ProcessEnded("a", 7),
    ]


def test_an_interrupt_lets_a_process_finish(runner: ProcessRunner, spec: Make):
    runner.start(spec("a", "obey"))
    assert until(runner, LineRead) == [LineRead("a", "ready")]
    runner.send("a", Order.INTERRUPT)
    assert until(runner, ProcessEnded) == [LineRead("a", "bye"), ProcessEnded("a", 0)]


@pytest.mark.parametrize(("order", "code"), [(Order.TERMINATE, 143), (Order.KILL, 137)])
def test_a_process_that_is_ended_has_the_signal_in_its_code(
    runner: ProcessRunner, spec: Make, order: Order, code: int
):
    runner.start(spec("a", "obey"))
    until(runner, LineRead)
    runner.send("a", order)
    assert until(runner, ProcessEnded)[-1] == ProcessEnded("a", code)


def test_a_stubborn_process_can_only_be_killed(runner: ProcessRunner, spec: Make):
    runner.start(spec("a", "stubborn"))
    until(runner, LineRead)
    runner.send("a", Order.INTERRUPT)
    runner.send("a", Order.TERMINATE)
    assert runner.next_event(0.3) is None
    runner.send("a", Order.KILL)
    assert until(runner, ProcessEnded) == [ProcessEnded("a", 137)]


def test_orders_to_the_dead_do_nothing(runner: ProcessRunner, spec: Make):
    runner.start(spec("a", "speak"))
    until(runner, ProcessEnded)
    for order in Order:
        runner.send("a", order)
    assert runner.next_event(0.1) is None


def test_processes_are_told_apart(runner: ProcessRunner, spec: Make):
    runner.start(spec("a", "speak"))
    runner.start(spec("b", "stubborn"))
    seen = until(runner, ProcessEnded)
    assert [event for event in seen if event.name == "a"][-1] == ProcessEnded("a", 7)
    runner.send("b", Order.KILL)
    assert until(runner, ProcessEnded)[-1] == ProcessEnded("b", 137)


def test_waiting_can_be_broken_off(runner: ProcessRunner):
    runner.wake()
    assert runner.next_event(20) == Woken()
    assert runner.next_event(0.01) is None


def test_a_missing_program_is_told(runner: ProcessRunner):
    with pytest.raises(MissingFileError, match="no_such_program_here"):
        runner.start(ProcessSpec(name="a", command=("no_such_program_here",)))


# What only real processes have.


def local(code: str, **changes: object) -> ProcessSpec:
    return ProcessSpec(name="a", command=(sys.executable, "-u", "-c", code), **changes)


def test_the_log_holds_every_byte_and_the_environment_is_laid_over(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TAKEN_AWAY", "1")
    log = tmp_path / "log" / "rank_0" / "mindformer.log"
    code = (
        "import os, sys; sys.stdout.buffer.write(b'a\\xff\\r\\nb'); sys.stdout.flush();"
        "sys.exit(os.environ.get('TAKEN_AWAY', '') + os.environ['GIVEN'] + os.getcwd())"
    )
    runner = LocalProcessRunner()
    runner.start(local(code, log=log, folder=tmp_path, environment={"TAKEN_AWAY": None, "GIVEN": "x"}))
    until(runner, ProcessEnded)
    assert log.read_bytes() == b"a\xff\r\nb" + f"x{tmp_path}\n".encode()


def test_what_a_process_leaves_behind_is_killed(tmp_path: Path):
    """A child that holds the pipe open neither delays the end nor survives it."""
    code = (
        "import subprocess, sys, time;"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    )
    runner = LocalProcessRunner()
    runner.start(local(code))
    *_, line, end = until(runner, ProcessEnded)
    assert end == ProcessEnded("a", 0)
    assert gone(int(line.text))


def test_processes_die_with_the_one_that_started_them(tmp_path: Path):
    """Even when that one is killed and can do nothing any more."""
    code = (
        "import sys; from glm3.adapters.process.runner import LocalProcessRunner;"
        "from glm3.domain.ports.process_runner import ProcessSpec\n"
        "r = LocalProcessRunner()\n"
        "r.start(ProcessSpec(name='b', command=(sys.executable, '-u', '-c',"
        " 'import os, time; print(os.getpid()); time.sleep(60)')))\n"
        "print(r.next_event().text, flush=True)\n"
        "r.next_event()"
    )
    runner = LocalProcessRunner()
    runner.start(local(code))
    (line,) = until(runner, LineRead)
    runner.send("a", Order.KILL)
    until(runner, ProcessEnded)
    assert gone(int(line.text))


def test_a_launcher_elsewhere_is_sent_its_orders(tmp_path: Path):
    runner = LocalProcessRunner()
    runner.start(local(ECHO_ORDERS, takes_orders=True))
    runner.send("a", Order.INTERRUPT)
    assert until(runner, LineRead) == [LineRead("a", "stop")]
    runner.send("a", Order.TERMINATE)
    assert until(runner, ProcessEnded) == [LineRead("a", "end"), ProcessEnded("a", 0)]


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"folder": Path("/nowhere")}, MissingFileError), ({"log": Path("/")}, StorageError)],
)
def test_what_cannot_be_started_is_told(changes: dict, error: type):
    with pytest.raises(error):
        LocalProcessRunner().start(local("pass", **changes))
