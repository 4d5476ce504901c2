"""Processes that only follow a script, in a time of their own that passes while events are waited for."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import count

from attrs import define, field, frozen

from glm3.domain.errors import MissingFileError
from glm3.domain.ports.process_runner import (
    LineRead,
    Order,
    ProcessEnded,
    ProcessEvent,
    ProcessSpec,
    Woken,
)

__all__ = ["FakeProcessRunner", "Script"]

_DEATHS = {Order.INTERRUPT: 130, Order.TERMINATE: 143, Order.KILL: 137}


@frozen(kw_only=True)
class Script:
    """What a process does: print lines, then end by itself with ``code``, or never if that is None.

    ``answers`` are its exit codes for the orders that it obeys, ``delay`` seconds after it got one; KILL
    needs no obedience.
    """

    lines: tuple[str, ...] = ()
    code: int | None = 0
    after: float = 0.0
    answers: Mapping[Order, int] = field(factory=lambda: dict(_DEATHS))
    delay: float = 0.0


@define
class FakeProcessRunner:
    """The runner of scripts, by the name of the program; ``now`` is its clock, in seconds.

    ``started`` and ``orders`` record what was asked for.
    """

    scripts: Mapping[str, Script]
    now: float = 0.0
    started: list[ProcessSpec] = field(factory=list)
    orders: list[tuple[float, str, Order]] = field(factory=list)
    _due: list[tuple[float, int, ProcessEvent]] = field(factory=list, init=False)
    _order: count[int] = field(factory=count, init=False)
    _alive: dict[str, Script] = field(factory=dict, init=False)

    def clock(self) -> float:
        """Return the time, in seconds."""
        return self.now

    def start(self, spec: ProcessSpec) -> None:
        """See :class:`glm3.domain.ports.process_runner.ProcessRunner`."""
        script = self.scripts.get(spec.command[0])
        if script is None:
            raise MissingFileError("no such program", path=spec.command[0], field=spec.name)
        self.started.append(spec)
        self._alive[spec.name] = script
        for line in script.lines:
            self._add(0.0, LineRead(spec.name, line))
        if script.code is not None:
            self._add(script.after, ProcessEnded(spec.name, script.code))

    def send(self, name: str, order: Order) -> None:
        """See :class:`glm3.domain.ports.process_runner.ProcessRunner`."""
        script = self._alive.get(name)
        if script is None:
            return
        self.orders.append((self.now, name, order))
        if order is Order.KILL:
            self._add(0.0, ProcessEnded(name, _DEATHS[order]))
        elif order in script.answers:
            self._add(script.delay, ProcessEnded(name, script.answers[order]))

    def next_event(self, timeout: float | None = None) -> ProcessEvent | None:
        """See :class:`glm3.domain.ports.process_runner.ProcessRunner`; time jumps to what is next."""
        while self._due and (timeout is None or self._due[0][0] <= self.now + timeout):
            due, _, event = heapq.heappop(self._due)
            self.now = max(self.now, due)
            if isinstance(event, Woken):
                return event
            if event.name not in self._alive:
                continue  # it ended otherwise meanwhile
            if isinstance(event, ProcessEnded):
                del self._alive[event.name]
            return event
        if timeout is None:
            raise AssertionError("every process waits for ever, and so does who watches them")
        self.now += timeout
        return None

    def wake(self) -> None:
        """See :class:`glm3.domain.ports.process_runner.ProcessRunner`."""
        self._add(0.0, Woken())

    def _add(self, delay: float, event: ProcessEvent) -> None:
        heapq.heappush(self._due, (self.now + delay, next(self._order), event))
