"""A model that computes as it does and is made to say a given text, alone and behind an engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from glm3.domain.engine.job import Job
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.engine.request import EngineRequest, Event, Produced
from glm3.domain.engine.scheduler import Scheduler
from glm3.domain.generation import GenerationConfig
from glm3.domain.ports.engine_observer import Silent
from glm3.domain.ports.model import FloatArray, KVCache
from glm3.domain.prompt_lookup import most_guesses


class ForcedModel:
    """Every pass is the model's own; behind each prefix of ``text`` its next id scores highest."""

    def __init__(self, model: Any, text: Sequence[int]) -> None:
        self._model = model
        self._text = list(text)
        self.config = model.config
        self.new_cache = model.new_cache
        self.verifiable = getattr(model, "verifiable", 1)

    def extend(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        scores: FloatArray = self._model.extend(cache, rows, tokens)
        return self._forced(scores, [cache.length(row) for row in rows])

    def verify(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        scores: FloatArray = self._model.verify(cache, rows, tokens)
        ends = [(cache.length(row), len(ids)) for row, ids in zip(rows, tokens, strict=True)]
        return self._forced(scores, [end for last, n in ends for end in range(last - n + 1, last + 1)])

    def _forced(self, scores: FloatArray, lengths: Sequence[int]) -> FloatArray:
        for row, length in zip(scores, lengths, strict=True):
            if length < len(self._text):
                row[self._text[length]] = np.float32(1e9)
        return scores


class ForcedEngine:
    """What a server's engine does, without its thread, for streams that all say ``text`` behind ``prompt``.

    ``passes`` and ``answers`` are those of the last :meth:`answer`.
    """

    def __init__(
        self, model: Any, prompt: Sequence[int], text: Sequence[int], streams: int, *, lookup: bool
    ) -> None:
        self._model = ForcedModel(model, [*prompt, *text])
        self._request = EngineRequest(prompt=prompt, options=GenerationConfig(max_new_tokens=len(text)))
        self._limits = EngineLimits(
            slots=streams, slot_tokens=len(prompt) + len(text), lookup=lookup, step_seconds=60
        )
        self.passes = 0
        self.answers: list[list[int]] = []

    def answer(self) -> float:
        """Return the seconds that the answers took behind their prompts."""
        limits, model = self._limits, self._model
        cache = model.new_cache(limits.slots, limits.slot_tokens)
        scheduler = Scheduler(cache, limits, Silent(), most_guesses(model))
        told: list[list[Event]] = [[] for _ in range(limits.slots)]
        for events in told:
            scheduler.enqueue(Job(model, limits.slot_tokens, self._request, events.append, 0.0))
        self.passes, seconds = 0, 0.0
        while step := scheduler.plan(0.0):
            started = time.perf_counter()
            scheduler.take(step, step.compute(model, cache), 0.0, 0.0)
            if not step.prompt_tokens:
                self.passes += 1
                seconds += time.perf_counter() - started
        self.answers = [[event.id for event in events if isinstance(event, Produced)] for events in told]
        return seconds


def copying_text(prompt: Sequence[int], count: int, seed: int = 3) -> list[int]:
    """Return passages of 24 ids from anywhere in a prompt with two new ids between them.

    It is what an answer that quotes or edits a document is like: nine tenths are copied.
    """
    generator = np.random.default_rng(seed)
    text: list[int] = []
    while len(text) < count:
        start = int(generator.integers(0, max(1, len(prompt) - 24)))
        text += [*prompt[start : start + 24], *generator.integers(3, 60, 2).tolist()]
    return text[:count]


def misleading_text(count: int, seed: int = 4) -> list[int]:
    """Return few ids in random order: pairs come back all the time, what followed them does not."""
    return np.random.default_rng(seed).integers(3, 15, count).tolist()
