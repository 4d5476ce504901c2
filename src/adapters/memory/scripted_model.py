"""A language model without weights: scores come from a function of the ids so far. For tests and examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from glm3.domain.engine.paged_rows import PagedRows
from glm3.domain.errors import ContextLengthError, InvalidInputError
from glm3.domain.model_config import ModelConfig
from glm3.domain.model_inputs import check_verified
from glm3.domain.ports.model import FloatArray, KVCache

__all__ = ["Scores", "ScriptedCache", "ScriptedModel", "hashed_scores", "ngram_scores", "reply_scores"]

Scores = Callable[[tuple[int, ...]], Sequence[float]]
"""From all ids of a row to one score for each id of the vocabulary."""


class ScriptedCache(PagedRows):
    """Hold the ids themselves where a network holds keys and values: in blocks of a pool."""

    def __init__(
        self, rows: int, capacity: int, pool_tokens: int | None = None, *, block_size: int = 8
    ) -> None:
        super().__init__(rows, capacity, block_size, pool_tokens)
        self._pool = [0] * (self.blocks * self.block_size)

    @property
    def ids(self) -> list[list[int]]:
        """The ids that each row holds."""
        return [self.held(row) for row in range(self.rows)]

    def held(self, row: int) -> list[int]:
        """Return the ids that a row holds."""
        return [self._pool[slot] for slot in self.slots(row)]

    def copy_block(self, source: int, target: int) -> None:
        size = self.block_size
        self._pool[target * size : (target + 1) * size] = self._pool[source * size : (source + 1) * size]

    def write(self, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> None:
        """Append ids to rows.

        Raises:
            BackendError: the pool has too few free blocks; nothing is changed.
        """
        starts = [self.length(row) for row in rows]
        self.grow(rows, [len(ids) for ids in tokens])
        for row, start, ids in zip(rows, starts, tokens, strict=True):
            for slot, token in zip(self.slots(row, start), ids, strict=True):
                self._pool[slot] = token


class ScriptedModel:
    """Score the next token with ``scores``; ``calls`` records what was computed, as the tokens of each call.

    Only what a row's cache holds is seen, so a caller that mixes up rows or forgets a token gets other
    scores, as it would from a network. ``verifiable`` is how many tokens it scores in one pass.
    """

    def __init__(
        self, scores: Scores, vocab_size: int, *, seq_length: int = 8192, verifiable: int = 1
    ) -> None:
        self._scores = scores
        self.verifiable = verifiable
        self._config = ModelConfig(padded_vocab_size=vocab_size, seq_length=seq_length)
        self.calls: list[tuple[tuple[int, ...], ...]] = []

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def computed_tokens(self) -> int:
        """Tokens computed so far, over all rows and calls."""
        return sum(len(row) for call in self.calls for row in call)

    def new_cache(self, rows: int, capacity: int, pool_tokens: int | None = None) -> ScriptedCache:
        """Allocate a cache.

        Raises:
            ContextLengthError: ``capacity`` exceeds ``seq_length``.
        """
        if capacity > self._config.seq_length:
            raise ContextLengthError(
                "a cache cannot exceed the model's context",
                field="capacity",
                expected=f"at most {self._config.seq_length} tokens",
                found=f"{capacity} tokens",
            )
        return ScriptedCache(rows, capacity, pool_tokens)

    def extend(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        """Append ids to rows and return scores ``(len(rows), vocab_size)``.

        Raises:
            ContextLengthError: a row would exceed the cache's capacity; then no row has changed.
            BackendError: the pool has too few free blocks; then no row has changed.
            InvalidInputError: rows repeat, a row gets no token, an id is none of the vocabulary, or the cache
                is another model's.
        """
        if not isinstance(cache, ScriptedCache):
            raise InvalidInputError("the cache is another model's", field="cache", found=type(cache).__name__)
        added = tuple(tuple(map(int, row)) for row in tokens)
        if len(set(rows)) != len(rows) or len(added) != len(rows) or not all(added):
            raise InvalidInputError("extend takes distinct rows and a token for each", field="rows")
        for row, ids in zip(rows, added, strict=True):
            if not all(0 <= token < self._config.padded_vocab_size for token in ids):
                raise InvalidInputError("no such id", field="tokens", found=ids)
            if cache.length(row) + len(ids) > cache.capacity:
                raise ContextLengthError(
                    "the cache is full",
                    field=f"row {row}",
                    expected=f"at most {cache.capacity} tokens",
                    found=f"{cache.length(row) + len(ids)} tokens",
                )
        cache.write(rows, added)
        self.calls.append(added)
        return np.array([self._scores(tuple(cache.held(row))) for row in rows], dtype=np.float32)

    def verify(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        """Append ids to rows and return the scores ``(ids of all rows, vocab_size)`` behind each.

        Raises:
            ContextLengthError: a row would exceed the cache's capacity; then no row has changed.
            BackendError: the pool has too few free blocks; then no row has changed.
            InvalidInputError: there are more tokens than ``verifiable``, or none, or another fault of
                :meth:`extend`.
        """
        check_verified(self.verifiable, tokens)
        self.extend(cache, rows, tokens)
        assert isinstance(cache, ScriptedCache)  # noqa: S101  # extend() took it
        scores = []
        for row, ids in zip(rows, tokens, strict=True):
            held = tuple(cache.held(row))
            scores += [self._scores(held[:end]) for end in range(len(held) - len(ids) + 1, len(held) + 1)]
        return np.array(scores, dtype=np.float32)


def ngram_scores(table: Mapping[tuple[int, ...], Sequence[float]], vocab_size: int) -> Scores:
    """Return scores by the longest suffix of the ids that is in ``table``; without one, all are 0."""
    orders = sorted({len(suffix) for suffix in table}, reverse=True)
    unknown = (0.0,) * vocab_size

    def scores(ids: tuple[int, ...]) -> Sequence[float]:
        known = (ids[len(ids) - n :] for n in orders if n <= len(ids))
        return next((table[suffix] for suffix in known if suffix in table), unknown)

    return scores


def hashed_scores(vocab_size: int, *, seed: int = 0, scale: float = 3.0) -> Scores:
    """Return standard-normal scores times ``scale`` that look random but depend on every id so far alone."""

    def scores(ids: tuple[int, ...]) -> Sequence[float]:
        digest = blake2b(repr((seed, ids)).encode(), digest_size=8).digest()
        generator = np.random.default_rng(int.from_bytes(digest, "little"))
        normal: list[float] = (scale * generator.standard_normal(vocab_size)).tolist()
        return normal

    return scores


def reply_scores(replies: Sequence[Sequence[int]], vocab_size: int, *, start_id: int, end_id: int) -> Scores:
    """Return scores that make a greedy caller read out ``replies``, one for each ``start_id`` in the ids.

    ``start_id`` is what a reply follows (``<|assistant|>``); a reply may contain it. Where a reply, or the
    script, is over, ``end_id`` scores highest.
    """
    script: list[list[int]] = []
    for reply in replies:
        script.append([])
        for token in reply:
            script[-1].append(token)
            if token == start_id:
                script.append([])

    def scores(ids: tuple[int, ...]) -> Sequence[float]:
        turn = ids.count(start_id) - 1
        said = ids[::-1].index(start_id) if turn >= 0 else 0
        reply = script[turn] if 0 <= turn < len(script) else []
        answer = [0.0] * vocab_size
        answer[reply[said] if said < len(reply) else end_id] = 10.0
        return answer

    return scores
