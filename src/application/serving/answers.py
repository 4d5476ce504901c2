"""The answers to one request as an asynchronous stream of deltas."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from attrs import frozen

from glm3.application.engine import Engine, Ticket
from glm3.application.serving.readers import AnswerReader
from glm3.application.serving.records import Delta, TextDelta, UsageDelta
from glm3.domain.conversation import Usage
from glm3.domain.engine.request import Cancelled, EngineRequest, Event, Failed, Listener, Produced, Started

__all__ = ["AnswerStream", "Asked", "LoopInbox"]


class LoopInbox:
    """Carry events from the engine's thread into an event loop.

    The loop is woken once for all that a step of the model produced: waking it for each of 64 streams costs
    more than the events themselves.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._events: deque[tuple[AnswerStream, int, Event]] = deque()
        self._woken = False

    def listener(self, stream: AnswerStream, choice: int) -> Listener:
        """Return what tells ``stream`` about its answer number ``choice``."""

        def post(event: Event) -> None:
            self._events.append((stream, choice, event))
            if not self._woken:
                self._woken = True
                self.loop.call_soon_threadsafe(self._deliver)

        return post

    def _deliver(self) -> None:
        self._woken = False  # first, so that what comes from now on wakes the loop again
        while self._events:
            stream, choice, event = self._events.popleft()
            stream.receive(choice, event)


@frozen(eq=False)
class Asked:
    """One answer to get: what the engine is asked, and what reads its tokens."""

    request: EngineRequest
    reader: AnswerReader


class AnswerStream:
    """Iterate over the deltas of all answers, as they come; usage is the last.

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
        self._ready: deque[Delta] = deque(beginning)
        self._error: BaseException | None = None
        self._left = len(asked)
        self._changed = asyncio.Event()
        self._tickets: list[Ticket] = []
        try:
            for choice, answer in enumerate(asked):
                self._tickets.append(engine.submit(answer.request, inbox.listener(self, choice)))
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """End all answers before the model's next step."""
        for ticket in self._tickets:
            ticket.cancel()

    def receive(self, choice: int, event: Event) -> None:
        """Take an event of the engine."""
        reader = self._readers[choice]
        if reader.finished or self._error is not None:
            return
        if isinstance(event, Started):
            self._cached.setdefault(choice, event.cached_tokens)
            return
        if isinstance(event, Failed):
            self._error = event.error
            self.cancel()
        elif isinstance(event, Cancelled):
            self._left = 0
        else:
            self._read(choice, event)
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._left == 0:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._ready.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def _read(self, choice: int, token: Produced) -> None:
        reader = self._readers[choice]
        try:
            for delta in reader.push(token):
                self._append(delta)
        except Exception as error:  # belongs to whoever iterates, not to the loop
            self._error = error
            self.cancel()
            return
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
