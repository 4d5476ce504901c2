"""Run the processes of a job until all are gone, and end the others when one fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field

from glm3.domain.launching.job import Failure, Job, JobResult, Patience
from glm3.domain.launching.runtime_lines import is_runtime_talk
from glm3.domain.ports.process_runner import LineRead, Order, ProcessEnded, ProcessRunner, ProcessSpec

__all__ = ["JobSupervisor"]

TAIL_LINES = 20
STUCK = 124
"""The exit code of a job that was ended because nothing happened, as that of ``timeout``."""
INTERRUPTED = 130
GONE_SECONDS = 10.0
"""How long a killed process may take to be gone."""


@define(kw_only=True)
class JobSupervisor:
    """One job.

    ``show`` is given each line with the name of its process, ``note`` what the user should know besides.
    ``clock`` tells seconds.
    """

    runner: ProcessRunner
    clock: Callable[[], float]
    show: Callable[[str, str], None]
    note: Callable[[str], None]
    patience: Patience = field(factory=Patience)
    _specs: dict[str, ProcessSpec] = field(factory=dict, init=False)
    _members: set[str] = field(factory=set, init=False)
    _helpers: set[str] = field(factory=set, init=False)
    _tails: dict[str, deque[str]] = field(factory=dict, init=False)
    _asked: int = field(default=0, init=False)
    _interrupted: bool = field(default=False, init=False)
    _failure: Failure | None = field(default=None, init=False)
    _failed_at: float | None = field(default=None, init=False)
    _ended_well_at: float | None = field(default=None, init=False)
    _heard_at: float = field(default=0.0, init=False)
    _kill_at: float | None = field(default=None, init=False)

    def interrupt(self) -> None:
        """Ask the members to finish, as Ctrl-C does; the second time, end them. Safe in a signal handler."""
        self._asked += 1
        self.runner.wake()

    def terminate(self) -> None:
        """End the job at once, whatever was asked before."""
        self._asked += 2
        self.runner.wake()

    def run(self, job: Job) -> JobResult:
        """Start the job and return when every process of it is gone.

        Raises:
            Glm3Error: a process does not start; those that did are ended.
        """
        try:
            for spec in job.helpers:
                self._start(spec, self._helpers)
            for spec in job.members:
                self._start(spec, self._members)
            self._heard_at = self.clock()
            self._watch()
        except BaseException:
            self._end_all()
            raise
        self._end_all()
        ending = 0.0 if self._failed_at is None else self.clock() - self._failed_at
        return JobResult(failure=self._failure, interrupted=self._interrupted, ending_seconds=ending)

    def _start(self, spec: ProcessSpec, group: set[str]) -> None:
        self.runner.start(spec)
        group.add(spec.name)
        self._specs[spec.name] = spec
        self._tails[spec.name] = deque(maxlen=TAIL_LINES)

    def _watch(self) -> None:
        obeyed = 0
        while self._members:
            event = self.runner.next_event(self._seconds_left())
            if isinstance(event, LineRead):
                self._heard_at = self.clock()
                if not is_runtime_talk(event.text):
                    self._tails[event.name].append(event.text)
                self.show(event.name, event.text)
            elif isinstance(event, ProcessEnded):
                self._take_leave(event)
            if obeyed < self._asked:
                obeyed = self._asked
                self._obey(obeyed)
            self._act_in_time()

    def _take_leave(self, event: ProcessEnded) -> None:
        is_member = event.name in self._members
        self._members.discard(event.name)
        self._helpers.discard(event.name)
        if event.code:
            self._fail(event.name, event.code, f"ended with exit code {event.code}")
        elif is_member and self._ended_well_at is None:
            self._ended_well_at = self.clock()

    def _obey(self, times_asked: int) -> None:
        if not self._members:
            return
        if times_asked > 1:
            self._interrupted = self._interrupted or self._failure is None
            self._fail(min(self._members), INTERRUPTED, "was interrupted")
            self._kill_at = self.clock()
        elif self._failure is None:
            self._interrupted = True
            self.note("interrupted: the ranks finish what they are at (again: end them at once)")
            self._send_all(Order.INTERRUPT)

    def _fail(self, name: str, code: int, reason: str) -> None:
        """Note the first failure, and ask the others to end."""
        if self._failure is not None:
            return
        tail = tuple(self._tails[name])
        self._failure = Failure(name=name, code=code, reason=reason, tail=tail, log=self._specs[name].log)
        self._failed_at = self.clock()
        self._kill_at = self._failed_at + self.patience.stop
        if self._members:
            self.note(f"{name} {reason}: ending {len(self._members)} others")
        self._send_all(Order.TERMINATE)

    def _act_in_time(self) -> None:
        now = self.clock()
        if self._kill_at is not None:
            if now >= self._kill_at:
                self._kill_at = None
                self._send_all(Order.KILL)
            return
        if self._failure is not None or not self._members:
            return
        last, silence = self.patience.last, self.patience.silence
        name = min(self._members)
        if self._ended_well_at is not None and last is not None and now >= self._ended_well_at + last:
            self._fail(name, STUCK, f"was still running {last:g} s after the first rank had ended")
        elif silence is not None and now >= self._heard_at + silence:
            names = ", ".join(sorted(self._members))
            self._fail(name, STUCK, f"hangs: no line of {names} for {silence:g} s")

    def _seconds_left(self) -> float | None:
        """Return the time until something must be done although nothing happens."""
        if self._kill_at is not None:
            return max(0.0, self._kill_at - self.clock())
        due = []
        if self._failure is None:
            if self._ended_well_at is not None and self.patience.last is not None:
                due.append(self._ended_well_at + self.patience.last)
            if self.patience.silence is not None:
                due.append(self._heard_at + self.patience.silence)
        return max(0.0, min(due) - self.clock()) if due else None

    def _send_all(self, order: Order) -> None:
        for name in sorted(self._members):
            self.runner.send(name, order)

    def _end_all(self) -> None:
        """Kill what is left, and wait until it is gone."""
        for name in sorted(self._members | self._helpers):
            self.runner.send(name, Order.KILL)
        deadline = self.clock() + GONE_SECONDS
        while self._members or self._helpers:
            event = self.runner.next_event(max(0.0, deadline - self.clock()))
            if isinstance(event, ProcessEnded):
                self._members.discard(event.name)
                self._helpers.discard(event.name)
            elif event is None:
                break
