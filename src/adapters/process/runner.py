"""Start and watch real processes, each with all that it starts in a session of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import IO

from attrs import define, field

from glm3.domain.errors import BackendError, MissingFileError, StorageError
from glm3.domain.ports.process_runner import (
    LineRead,
    Order,
    ProcessEnded,
    ProcessEvent,
    ProcessSpec,
    Woken,
)
from glm3.domain.positional_io import storage_errors

__all__ = ["LocalProcessRunner"]

GUARD = Path(__file__).with_name("guard.py")
WAITING_LINES = 10_000
"""Lines read ahead; a process that prints faster than they are taken has to wait."""
LAST_LINES_SECONDS = 2.0
"""How long a dead process's pipe is read on: something that it started may hold it open."""
LONGEST_LINE = 65_536
_SIGNALS = {
    Order.INTERRUPT: signal.SIGINT,
    Order.TERMINATE: signal.SIGTERM,
    Order.KILL: signal.SIGKILL,
}


@define
class _Running:
    process: subprocess.Popen[bytes]
    takes_orders: bool
    lock: Lock = field(factory=Lock)
    gone: bool = False


@define
class LocalProcessRunner:
    """The runner for this machine."""

    _events: SimpleQueue[ProcessEvent] = field(factory=SimpleQueue, init=False)
    _room: Semaphore = field(factory=lambda: Semaphore(WAITING_LINES), init=False)
    _running: dict[str, _Running] = field(factory=dict, init=False)

    def start(self, spec: ProcessSpec) -> None:
        """See :class:`glm3.domain.ports.process_runner.ProcessRunner`."""
        environment = _environment(spec)
        program = shutil.which(spec.command[0], path=environment.get("PATH"))
        if program is None:
            raise MissingFileError("no such program", path=spec.command[0], field=spec.name)
        if not spec.folder.is_dir():
            raise MissingFileError("no such folder", path=spec.folder, field=spec.name)
        log = _open_log(spec.log)
        guard = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid())]
        try:
            process = subprocess.Popen(  # noqa: S603  # the user's own command
                [*guard, program, *spec.command[1:]],
                cwd=spec.folder,
                env=environment,
                stdin=subprocess.PIPE if spec.takes_orders else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            if log is not None:
                log.close()
            raise BackendError(f"the process does not start: {error.strerror}", field=spec.name) from error
        running = _Running(process, spec.takes_orders)
        self._running[spec.name] = running
        reader = Thread(target=self._read, args=(spec.name, process, log), daemon=True)
        reader.start()
        Thread(target=self._await, args=(spec.name, running, reader), daemon=True).start()

    def send(self, name: str, order: Order) -> None:
        """See :class:`glm3.domain.ports.process_runner.ProcessRunner`."""
        running = self._running[name]
        with running.lock:
            if running.gone:
                return
            if running.takes_orders and order is not Order.KILL:
                _write_order(running.process, order)
            else:
                with suppress(ProcessLookupError):
                    os.killpg(running.process.pid, _SIGNALS[order])

    def next_event(self, timeout: float | None = None) -> ProcessEvent | None:
        """See :class:`glm3.domain.ports.process_runner.ProcessRunner`."""
        try:
            event = self._events.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(event, LineRead):
            self._room.release()
        return event

    def wake(self) -> None:
        """See :class:`glm3.domain.ports.process_runner.ProcessRunner`."""
        self._events.put(Woken())

    def _read(self, name: str, process: subprocess.Popen[bytes], log: IO[bytes] | None) -> None:
        assert process.stdout is not None  # noqa: S101  # it was opened so
        with process.stdout as output, log or nullcontext():
            while line := output.readline(LONGEST_LINE):
                if log is not None:
                    try:
                        log.write(line)
                    except OSError as error:
                        log = None
                        self._say(name, f"its log is not written any more: {error.strerror}")
                self._say(name, line.decode("utf-8", "replace").rstrip("\r\n"))

    def _say(self, name: str, text: str) -> None:
        self._room.acquire()
        self._events.put(LineRead(name, text))

    def _await(self, name: str, running: _Running, reader: Thread) -> None:
        """Wait without reaping: while the dead process is not reaped its number is nobody else's."""
        process = running.process
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with running.lock:
            running.gone = True
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started and left behind
            code = process.wait()
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
        reader.join(LAST_LINES_SECONDS)
        self._events.put(ProcessEnded(name, code if code >= 0 else 128 - code))


def _environment(spec: ProcessSpec) -> dict[str, str]:
    merged = {**os.environ, **spec.environment}
    return {name: value for name, value in merged.items() if value is not None}


def _open_log(path: Path | None) -> IO[bytes] | None:
    """Open unbuffered: a log must show what a process said before it hung."""
    if path is None:
        return None
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise StorageError("a folder is in the place of the log", path=path)
        return path.open("wb", buffering=0)


def _write_order(process: subprocess.Popen[bytes], order: Order) -> None:
    assert process.stdin is not None  # noqa: S101  # it was opened so
    with suppress(OSError, ValueError):  # it has closed its end, or was asked before
        if order is Order.INTERRUPT:
            process.stdin.write(b"stop\n")
            process.stdin.flush()
        else:
            process.stdin.close()
