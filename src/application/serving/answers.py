"""The answers to one request as an asynchronous stream of deltas."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self

from attrs import frozen

from glm3.application.engine import Engine, Ticket
from glm3.application.serving.readers import AnswerReader
from glm3.application.serving.records import Delta, TextDelta, UsageDelta
from glm3.domain.conversation import Usage
from glm3.domain.engine.request import Cancelled, EngineRequest, Event, Failed, Produced, Started, is_last

__all__ = ["AnswerStream", "Asked", "LoopInbox"]

_PACE_SECONDS = 1 / 60  # a screen shows no more pieces a second; more cost cores that the model needs


class LoopInbox:
    """Wake streams of an event loop from the engine's thread.

    The loop is woken once for all streams that wait when a step of the model ends: waking it for each of 64
    costs more than the events themselves.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[AnswerStream] = deque()
        self._woken = False

    def wake(self, stream: AnswerStream) -> None:
        """Let a stream look at its events, soon."""
        self._waiting.append(stream)
        if not self._woken:
            self._woken = True
            self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # first, so that what comes from now on wakes the loop again
        while self._waiting:
            self._waiting.popleft().wake()


@frozen(eq=False)
class Asked:
    """One answer to get: what the engine is asked, and what reads its tokens."""

    request: EngineRequest
    reader: AnswerReader


class AnswerStream:
    """Iterate over the deltas of all answers, as they come; usage is the last.

    Tokens that come faster than a screen shows them are read and passed on together.

    Use it as a context manager: leaving the block cancels what still runs. Iterating raises the
    :class:`Glm3Error` that an answer failed with, and just ends after :meth:`cancel`.

    Args:
        engine: answers.
        inbox: of the loop that iterates.
        asked: the answers to get.
        prompt_tokens: of all prompts together.
        beginning: deltas to begin with.

    Raises:
        Glm3Error: the engine does not take the request; nothing is left running.
    """

    def __init__(
        self,
        engine: Engine,
        inbox: LoopInbox,
        asked: Sequence[Asked],
        prompt_tokens: int,
        beginning: Sequence[Delta] = (),
    ) -> None:
        self._readers = [answer.reader for answer in asked]
        self._prompt_tokens = prompt_tokens
        self._cached: dict[int, int] = {}
        self._inbox = inbox
        self._events: deque[tuple[int, Event]] = deque()
        self._ready: deque[Delta] = deque(beginning)
        self._due = 0.0
        self._waits = False
        self._running = len(asked)
        self._error: BaseException | None = None
        self._left = len(asked)
        self._changed = asyncio.Event()
        self._tickets: list[Ticket] = []
        try:
            for choice, answer in enumerate(asked):
                self._tickets.append(engine.submit(answer.request, partial(self._post, choice)))
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """End all answers before the model's next step."""
        for ticket in self._tickets:
            ticket.cancel()

    def wake(self) -> None:
        """Look at what the engine has posted."""
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        while not self._ready:
            if self._events:
                await self._keep_pace()
                self._read_all()
            elif self._error is not None:
                raise self._error
            elif self._left == 0:
                raise StopAsyncIteration
            else:
                await self._wait()
        return self._ready.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def _post(self, choice: int, event: Event) -> None:
        """Take an event in the engine's thread; whoever does not wait for it finds it later."""
        self._events.append((choice, event))
        if is_last(event):
            self._running -= 1
        if self._waits or not self._running:
            self._waits = False
            self._inbox.wake(self)

    async def _wait(self) -> None:
        self._changed.clear()
        self._waits = True
        if not self._events:  # what comes from now on wakes this one
            await self._changed.wait()
        self._waits = False

    async def _keep_pace(self) -> None:
        """Wait until the next piece is due, or the last one has come."""
        if self._running and self._due > self._inbox.loop.time():
            self._changed.clear()
            due = self._inbox.loop.call_at(self._due, self._changed.set)
            if self._running:
                await self._changed.wait()
            due.cancel()

    def _read_all(self) -> None:
        tokens: dict[int, list[Produced]] = {}
        failure: BaseException | None = None
        while self._events:
            choice, event = self._events.popleft()
            match event:
                case Produced():
                    tokens.setdefault(choice, []).append(event)
                case Started():
                    self._cached.setdefault(choice, event.cached_tokens)
                case Failed():
                    failure = failure or event.error
                case Cancelled():
                    self._left = 0
        try:
            for choice, produced in tokens.items():
                if not self._readers[choice].finished:
                    self._read(self._readers[choice], produced)
        except Exception as error:  # belongs to whoever iterates
            failure = failure or error
        if failure is not None:
            self._error = failure
            self.cancel()
        if self._ready:
            self._due = self._inbox.loop.time() + _PACE_SECONDS

    def _read(self, reader: AnswerReader, produced: Sequence[Produced]) -> None:
        for delta in reader.push(produced):
            self._append(delta)
        if reader.finished:
            self._count_down()

    def _append(self, delta: Delta) -> None:
        """Add to what is ready; a reader that lags gets its text in fewer and larger pieces."""
        last = self._ready[-1] if self._ready else None
        if isinstance(delta, TextDelta) and isinstance(last, TextDelta) and last.choice == delta.choice:
            self._ready[-1] = TextDelta(delta.choice, last.text + delta.text, last.logprobs + delta.logprobs)
        else:
            self._ready.append(delta)

    def _count_down(self) -> None:
        self._left -= 1
        if self._left == 0:
            completion = sum(reader.token_count for reader in self._readers)
            cached = self._cached.get(0, 0)
            self._ready.append(UsageDelta(Usage(self._prompt_tokens, completion), cached))
