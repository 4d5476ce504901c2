"""Continuous batching: which rows the next call of the model extends, and by what.

Requests join and leave between two calls. Each call holds one token of every answer that runs and, as far
as the chunk budget goes, an equal share for every prompt that is being computed, so neither a long prompt
nor a short one waits for the other. A call without prompts may also hold guesses of how answers that repeat
go on. What a request is answered depends on its own row alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from attrs import frozen

from glm3.domain.engine.chunk_budget import ChunkBudget
from glm3.domain.engine.fair_queue import FairQueue
from glm3.domain.engine.guesses import guesses_of
from glm3.domain.engine.job import Job
from glm3.domain.engine.kv_rows import MIN_SHARED, KVRows, common_prefix
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.engine.request import Cancelled, Failed, Started
from glm3.domain.errors import Glm3Error, TimeLimitError
from glm3.domain.ports.engine_observer import EngineObserver, EngineStats
from glm3.domain.ports.model import FloatArray, KVCache, LanguageModel, SupportsVerification

__all__ = ["Scheduler", "Step"]


@frozen(eq=False)
class Step:
    """One call of the model: ``tokens[i]`` extend the row of ``jobs[i]``.

    Where ``guessed``, all but the first of each row's tokens are guesses, which the model verifies.
    """

    jobs: Sequence[Job]
    rows: Sequence[int]
    tokens: Sequence[Sequence[int]]
    prompt_tokens: int
    guessed: bool = False

    def compute(self, model: LanguageModel, cache: KVCache) -> list[FloatArray]:
        """Let the model take the step, and return for each job scores ``(n, padded_vocab_size)``.

        They are of what follows its last token or, where ``guessed``, each of its tokens.
        """
        if self.guessed and isinstance(model, SupportsVerification):
            ends = np.cumsum([len(ids) for ids in self.tokens])
            return np.split(model.verify(cache, self.rows, self.tokens), ends[:-1])
        return list(model.extend(cache, self.rows, self.tokens)[:, None])


class Scheduler:
    """Decide what to compute, and hand out what comes of it.

    :meth:`enqueue` and :meth:`plan` change the queue, so threads must not call them at the same time; all
    else belongs to the thread that steps the model. Times are on one clock, in seconds.

    Args:
        cache: an empty one with a row for every slot, and some to keep ended conversations in.
        limits: the budget.
        observer: told what happens.
        most_guesses: guesses that a call with one answer may hold; each other answer takes one's place.
    """

    def __init__(
        self, cache: KVCache, limits: EngineLimits, observer: EngineObserver, most_guesses: int = 0
    ) -> None:
        self._limits = limits
        self._observer = observer
        self._kv = KVRows(cache)
        self._queue: FairQueue[Job] = FairQueue(limits.queue, limits.queue_per_client)
        self._budget = ChunkBudget(limits.prefill_chunk, limits.step_seconds)
        self._admitted: list[Job] = []  # oldest first
        self._verifiable = 1 + most_guesses if limits.lookup else 0

    @property
    def cache(self) -> KVCache:
        return self._kv.cache

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._admitted and not len(self._queue)

    def stats(self) -> EngineStats:
        """Return what is held at this moment; any thread may ask."""
        cache, admitted = self._kv.cache, list(self._admitted)
        running = sum(job.started for job in admitted)
        return EngineStats(
            running=running,
            waiting=len(self._queue) + len(admitted) - running,
            slots=self._limits.slots,
            kv_tokens=self._kv.tokens,
            kv_capacity=cache.blocks * cache.block_size,
        )

    def enqueue(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            OverloadedError: the queue is full.
        """
        self._queue.push(job.client, job, free=self._limits.slots - len(self._admitted))

    def plan(self, now: float) -> Step | None:
        """Let jobs go and come, and return what to compute; None when there is nothing."""
        self._dismiss(now)
        self._admit(now)
        return self._next_step()

    def take(self, step: Step, scores: Sequence[FloatArray], now: float, seconds: float) -> None:
        """Hand out what :meth:`Step.compute` gave."""
        if step.prompt_tokens:
            self._budget.observe(step.prompt_tokens, seconds)
        before = sum(job.new_tokens for job in step.jobs)
        for job, row, tokens, job_scores in zip(step.jobs, step.rows, step.tokens, scores, strict=True):
            known = len(tokens) - len(job_scores) + 1  # behind them come guesses
            self._kv.append(row, tokens[:known])
            if self._kv.length(row) >= len(job.prompt):
                self._hand_out(job, tokens[known:], job_scores, now)
            if step.guessed:
                self._kv.drop_guesses(row)
        produced = sum(job.new_tokens for job in step.jobs) - before
        self._observer.stepped(len(step.jobs), step.prompt_tokens, produced, seconds)

    def fail(self, step: Step, error: Glm3Error, now: float) -> None:
        """End the jobs of a step that the model did not survive; all others go on."""
        for job in step.jobs:
            if job in self._admitted:  # others ended in this very step
                self._fail(job, error, now)

    def fail_all(self, error: Glm3Error, now: float) -> None:
        """End every job, waiting ones included."""
        for job in list(self._admitted):
            self._fail(job, error, now)
        for job in self._queue.remove(lambda _: True):
            self._fail(job, error, now)

    def _hand_out(self, job: Job, guesses: Sequence[int], scores: FloatArray, now: float) -> None:
        """Choose the next token and, for as long as it was guessed, those behind it."""
        for guess, token_scores in zip([*guesses, None], scores, strict=True):
            try:
                token = job.take(token_scores)
            except Glm3Error as error:
                self._fail(job, error, now)
                return
            if job.new_tokens == 1:
                self._observer.first_token(now - job.submitted)
            if token.finish_reason is not None:
                self._end(job, token.finish_reason.value, now)
            job.tell(token)
            if token.id != guess or token.finish_reason is not None or job.cancelled:
                return
            self._kv.append(job.row, [token.id])

    def _dismiss(self, now: float) -> None:
        gone = self._queue.remove(lambda job: _is_over(job, now))
        for job in gone + [job for job in self._admitted if _is_over(job, now)]:
            if job.cancelled:
                self._end(job, "cancelled", now)
                job.tell(Cancelled())
            else:
                self._fail(job, _too_late(job), now, trusted=True)

    def _admit(self, now: float) -> None:
        """Start what can be started, in turn: nobody passes a request for which there are too few blocks."""
        for job in self._admitted:
            if not job.started and not self._started(job, now):
                return
        if not len(self._queue):
            return
        served = Counter(job.client for job in self._admitted)
        while len(self._admitted) < self._limits.slots and len(self._queue):
            job = self._queue.pop(served)
            served[job.client] += 1
            self._follow(job)
            self._admitted.append(job)
            if not self._started(job, now):
                return

    def _follow(self, job: Job) -> None:
        """Let a job wait for another that computes the same beginning, where that is worth it."""
        held = self._kv.best_prefix(job.prompt)
        for other in self._admitted:
            if other.answers:
                continue
            shared = min(common_prefix(other.prompt, job.prompt), len(job.prompt) - 1)
            if shared >= max(held, job.shared) + MIN_SHARED:
                job.leader, job.shared = other, shared

    def _waits_for_leader(self, job: Job) -> bool:
        leader = job.leader
        if leader is None or leader not in self._admitted:
            return False
        return not leader.started or self._kv.length(leader.row) < job.shared

    def _started(self, job: Job, now: float) -> bool:
        """Start a job, if its leader has come so far; tell whether there were blocks for it."""
        if self._waits_for_leader(job):
            return True
        claimed = self._kv.claim(job.prompt, job.most_tokens)
        if claimed is None:
            return False
        job.leader = None
        job.row, cached = claimed
        self._observer.started(len(job.prompt), cached, now - job.submitted)
        job.tell(Started(cached))
        return True

    def _next_step(self) -> Step | None:
        jobs = [job for job in self._admitted if job.answers]
        tokens: list[Sequence[int]] = [[job.decoding.last] for job in jobs]
        prompts = [job for job in self._admitted if job.started and not job.answers]
        budget = self._budget.tokens(answers_run=bool(jobs))
        prompt_tokens = 0
        for index, job in enumerate(prompts[:budget]):
            start = self._kv.length(job.row)
            share = max(1, (budget - prompt_tokens) // (len(prompts) - index))
            chunk = job.decoding.prompt[start : start + share]
            jobs.append(job)
            tokens.append(chunk)
            prompt_tokens += len(chunk)
        if not jobs:
            return None
        rows = [job.row for job in jobs]
        self._kv.make_room(rows, [len(ids) for ids in tokens])
        most = 0 if prompt_tokens else self._verifiable - len(jobs)
        guesses = guesses_of(jobs, self._kv, most) if most > 0 else []
        if any(guesses):
            tokens = [[*ids, *guessed] for ids, guessed in zip(tokens, guesses, strict=True)]
        return Step(jobs, rows, tokens, prompt_tokens, any(guesses))

    def _fail(self, job: Job, error: Glm3Error, now: float, *, trusted: bool = False) -> None:
        if job.started and not trusted:
            self._kv.forget(job.row)
        self._end(job, "failed", now)
        job.tell(Failed(error))

    def _end(self, job: Job, outcome: str, now: float) -> None:
        if job in self._admitted:
            self._admitted.remove(job)
        if job.started:
            self._kv.release(job.row)
        self._observer.ended(outcome, job.new_tokens, now - job.submitted)


def _is_over(job: Job, now: float) -> bool:
    return job.cancelled or (job.deadline is not None and now >= job.deadline)


def _too_late(job: Job) -> TimeLimitError:
    where = "while it was computed" if job.started else "while it waited for its turn"
    return TimeLimitError(
        f"the request's time was over {where}",
        expected=f"at most {job.request.time_limit:g} s",
        found=f"{job.new_tokens} tokens",
        hint="ask for fewer tokens, or try again when there is less to do",
    )
