"""A model that computes as it does and is made to say a given text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from glm3.domain.ports.model import FloatArray, KVCache


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
