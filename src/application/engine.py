"""Run the model for many requests at once, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from time import monotonic

from glm3.domain.engine.job import Job
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.engine.request import Cancelled, EngineRequest, Event, Failed, Listener, Produced
from glm3.domain.engine.scheduler import Scheduler, Step
from glm3.domain.errors import BackendError, Glm3Error, UnavailableError
from glm3.domain.ports.engine_observer import EngineObserver, EngineStats, Silent
from glm3.domain.ports.model import LanguageModel
from glm3.domain.prompt_lookup import most_guesses

__all__ = ["Engine", "Ticket"]

Clock = Callable[[], float]


class Ticket:
    """A submitted request."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self._engine = engine
        self._job = job

    def cancel(self) -> None:
        """End the request before the model's next step; without effect on one that has ended."""
        self._job.cancelled = True
        self._engine.wake()


class Engine:
    """Take requests from any thread; one thread, in :meth:`run`, steps the model for all of them.

    Args:
        model: used by that thread only.
        limits: the fixed budget; ``slot_tokens`` is cut to the model's context.
        observer: told what happens, from that thread.
    """

    def __init__(
        self,
        model: LanguageModel,
        limits: EngineLimits | None = None,
        observer: EngineObserver | None = None,
        clock: Clock = monotonic,
    ) -> None:
        limits = limits or EngineLimits()
        self.model = model
        self.slot_tokens = min(limits.slot_tokens, model.config.seq_length)
        pool_tokens = limits.pool_tokens or limits.slots * self.slot_tokens
        cache = model.new_cache(limits.slots + limits.kept, self.slot_tokens, pool_tokens)
        self._scheduler = Scheduler(cache, limits, observer or Silent(), most_guesses(model))
        self._clock = clock
        self._changed = threading.Condition()
        self._closing = False
        self._stopping = False
        self._idle = threading.Event()
        self._idle.set()
        self.failed_steps = 0

    def submit(self, request: EngineRequest, listener: Listener) -> Ticket:
        """Let a request wait for its turn; ``listener`` is told its events from the engine's thread.

        Raises:
            UnavailableError: the engine is closing.
            OverloadedError: the queue is full.
            ContextLengthError: the prompt leaves no room for an answer.
            InvalidInputError: the prompt has an id the model does not know, or the options do not fit.
        """
        job = Job(self.model, self.slot_tokens, request, listener, self._clock())
        with self._changed:
            if self._closing:
                raise UnavailableError("the service is about to stop", hint="ask another instance")
            self._scheduler.enqueue(job)
            self._idle.clear()
            self._changed.notify()
        return Ticket(self, job)

    def stream(self, request: EngineRequest) -> Iterator[Produced]:
        """Submit a request and yield its tokens; closing the iterator cancels it.

        Raises:
            Glm3Error: as :meth:`submit`, or what the request failed with.
        """
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        return self._follow(self.submit(request, events.put), events)

    def stats(self) -> EngineStats:
        """Return what the engine holds at this moment."""
        return self._scheduler.stats()

    def wake(self) -> None:
        """Let the engine look for something to do."""
        with self._changed:
            self._changed.notify()

    def run(self) -> None:
        """Step the model until :meth:`stop`; a model that fails costs the requests of that step only."""
        while True:
            with self._changed:
                step = self._plan()
                while step is None:
                    if self._scheduler.idle:
                        self._idle.set()
                        if self._stopping:
                            return
                        self._changed.wait()
                    step = self._plan()
            self._advance(step)

    def start(self) -> threading.Thread:
        """Call :meth:`run` in a new thread."""
        thread = threading.Thread(target=self.run, name="glm3-engine", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Take no more requests; those submitted go on."""
        with self._changed:
            self._closing = True

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until every request has ended, and tell whether that is so."""
        return self._idle.wait(timeout)

    def stop(self) -> None:
        """Take no more requests, end those that run, and let :meth:`run` return."""
        with self._changed:
            self._closing = self._stopping = True
            self._changed.notify()

    def _plan(self) -> Step | None:
        try:
            if self._stopping:
                self._scheduler.fail_all(UnavailableError("the service has stopped"), self._clock())
            return self._scheduler.plan(self._clock())
        except Exception as error:  # whatever it is, the thread must live on
            self._scheduler.fail_all(_unexpected(error), self._clock())
            return None

    def _advance(self, step: Step) -> None:
        started = self._clock()
        try:
            scores = step.compute(self.model, self._scheduler.cache)
            now = self._clock()
            self._scheduler.take(step, scores, now, now - started)
        except Exception as error:  # whatever it is, the other requests must live on
            self.failed_steps += 1
            self._scheduler.fail(step, _unexpected(error), self._clock())

    def _follow(self, ticket: Ticket, events: queue.SimpleQueue[Event]) -> Iterator[Produced]:
        try:
            while True:
                event = events.get()
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Cancelled):
                    return
                if isinstance(event, Produced):
                    yield event
                    if event.finish_reason is not None:
                        return
        finally:
            ticket.cancel()


def _unexpected(error: Exception) -> Glm3Error:
    if isinstance(error, Glm3Error):
        return error
    failure = BackendError(f"the model failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
