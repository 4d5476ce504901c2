"""Drive a scheduler by hand, and keep what requests are told."""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from glm3.domain.conversation import FinishReason
from glm3.domain.engine.job import Job
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.engine.paged_rows import PagedRows
from glm3.domain.engine.request import Cancelled, EngineRequest, Event, Failed, Produced, Started
from glm3.domain.engine.scheduler import Scheduler, Step
from glm3.domain.errors import Glm3Error
from glm3.domain.ports.engine_observer import EngineObserver, Silent
from glm3.domain.ports.model import LanguageModel
from glm3.domain.prompt_lookup import most_guesses


@define
class Told:
    """Everything one request was told."""

    events: list[Event] = field(factory=list)

    @property
    def ids(self) -> list[int]:
        return [event.id for event in self.events if isinstance(event, Produced)]

    @property
    def cached(self) -> int:
        return next(event.cached_tokens for event in self.events if isinstance(event, Started))

    @property
    def started(self) -> bool:
        return any(isinstance(event, Started) for event in self.events)

    @property
    def error(self) -> Glm3Error | None:
        return next((event.error for event in self.events if isinstance(event, Failed)), None)

    @property
    def reason(self) -> FinishReason | None:
        """Return how it ended, after checking that it ended once."""
        ends = [event for event in self.events if is_end(event)]
        assert len(ends) <= 1
        assert not ends or self.events[-1] is ends[0]
        if not ends or isinstance(ends[0], Failed | Started):
            return None
        return FinishReason.CANCELLED if isinstance(ends[0], Cancelled) else ends[0].finish_reason

    @property
    def ended(self) -> bool:
        return any(map(is_end, self.events))


def is_end(event: Event) -> bool:
    return isinstance(event, Failed | Cancelled) or (
        isinstance(event, Produced) and event.finish_reason is not None
    )


class Desk:
    """A scheduler, its model and a clock that ticks once a step."""

    def __init__(
        self, model: LanguageModel, limits: EngineLimits, observer: EngineObserver | None = None
    ) -> None:
        self.model = model
        self.tokens = min(limits.slot_tokens, model.config.seq_length)
        pool_tokens = limits.pool_tokens or limits.slots * self.tokens
        self.cache = model.new_cache(limits.slots + limits.kept, self.tokens, pool_tokens)
        self.scheduler = Scheduler(self.cache, limits, observer or Silent(), most_guesses(model))
        self.now = 0.0
        self.steps: list[Step] = []

    def submit(self, request: EngineRequest) -> tuple[Job, Told]:
        told = Told()
        job = Job(self.model, self.tokens, request, told.events.append, self.now)
        self.scheduler.enqueue(job)
        return job, told

    def step(self) -> Step | None:
        """Let the model take one step; return it, or None when there is nothing to do."""
        step = self.scheduler.plan(self.now)
        self.now += 1
        if step is None:
            return None
        self.steps.append(step)
        try:
            starts = [self.cache.length(row) for row in step.rows]
            scores = step.compute(self.model, self.cache)
            self._check_blocks(step, starts)
        except Glm3Error as error:
            self.scheduler.fail(step, error, self.now)
        else:
            self.scheduler.take(step, scores, self.now, 0.001)
            self._check_guesses(step)
        return step

    def _check_blocks(self, step: Step, starts: list[int]) -> None:
        """Check that each row wrote what it may into blocks of its own, and that every block has a holder."""
        cache = self.cache
        assert isinstance(cache, PagedRows)
        tables = [cache.table(row) for row in range(cache.rows)]
        holders = Counter(block for table in tables for block in table)
        for job, row, start in zip(step.jobs, step.rows, starts, strict=True):
            assert cache.length(row) <= job.most_tokens
            assert all(holders[block] == 1 for block in tables[row][start // cache.block_size :])
        assert len(holders) == cache.blocks - cache.free_blocks

    def _check_guesses(self, step: Step) -> None:
        """Check that guesses are few, that no prompt is beside them, and that no wrong one left a trace."""
        if step.guessed:
            assert sum(map(len, step.tokens)) <= 1 + most_guesses(self.model)
            assert not step.prompt_tokens
        cache, kv = self.cache, self.scheduler._kv
        assert isinstance(cache, PagedRows)
        for row in range(cache.rows):
            assert cache.length(row) == kv.length(row)
            assert len(cache.table(row)) == -(-(cache.prefix + kv.length(row)) // cache.block_size)

    def finish(self, most: int = 2000) -> None:
        """Step until there is nothing to do."""
        for _ in range(most):
            if self.step() is None:
                assert self.scheduler.idle
                return
        raise AssertionError("the scheduler does not come to an end")
