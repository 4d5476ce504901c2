"""Extend and score sequences with the native decoder, a bounded number of tokens at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from glm3.adapters.mindspore.inference.cache import MindSporeCache
from glm3.adapters.mindspore.inference.decoder import Chunk, FloatArray, NativeDecoder
from glm3.adapters.mindspore.inference.weights import NetworkWeights
from glm3.domain.model_config import ModelConfig

__all__ = ["VERIFIABLE", "NativeRunner"]

IntArray = NDArray[np.int64]
Tables = tuple[FloatArray, FloatArray]

_CHUNK = 256  # tokens in a pass: 60 MB of activations at 6B, and weights are unpacked once for all of them


VERIFIABLE = 8
"""Tokens of a pass up to which all kernels add up what they add for one token, in the same order."""


class NativeRunner:
    """One network and its decoder."""

    def __init__(self, config: ModelConfig, weights: NetworkWeights, decoder: NativeDecoder) -> None:
        self._config = config
        self._weights = weights
        self._decoder = decoder

    def extend(
        self, cache: MindSporeCache, rows: Sequence[int], tokens: Sequence[Sequence[int]], tables: Tables
    ) -> FloatArray:
        """Append ``tokens[i]`` to row ``rows[i]``; return the scores behind each row's last token.

        ``tables`` are cos and sin for every place of the cache.
        """
        network = self._weights.refresh()
        scores = np.empty((len(rows), self._config.padded_vocab_size), np.float32)
        starts, lengths = [cache.prefix + cache.length(row) for row in rows], [len(ids) for ids in tokens]
        cache.grow(rows, lengths)
        for part in _parts(lengths):
            ids, places, spans, wanted, ended = [], [], [], [], []
            count = 0
            for i, first, length in part:
                start = starts[i] + first
                ids.append(np.asarray(tokens[i][first : first + length], np.int32))
                places.append(np.arange(start, start + length))
                spans.append((rows[i], start, length))
                count += length
                if first + length == len(tokens[i]):
                    wanted.append(count - 1)
                    ended.append(i)
            place = np.concatenate(places)
            chunk = Chunk(
                np.concatenate(ids), spans, tables[0][place], tables[1][place], np.array(wanted, np.int32)
            )
            scores[ended] = self._decoder.run(network, cache, chunk)
        return scores

    def verify(
        self, cache: MindSporeCache, rows: Sequence[int], tokens: Sequence[Sequence[int]], tables: Tables
    ) -> FloatArray:
        """Append ``tokens[i]`` to row ``rows[i]``; return the scores ``(tokens, vocab)`` behind each.

        There are up to ``VERIFIABLE`` of them.
        """
        network = self._weights.refresh()
        starts, lengths = [cache.prefix + cache.length(row) for row in rows], [len(ids) for ids in tokens]
        cache.grow(rows, lengths)
        spans = list(zip(rows, starts, lengths, strict=True))
        place = np.concatenate([np.arange(start, start + length) for _, start, length in spans])
        ids, wanted = np.concatenate(tokens).astype(np.int32), np.arange(len(place), dtype=np.int32)
        return self._decoder.run(
            network, cache, Chunk(ids, spans, tables[0][place], tables[1][place], wanted)
        )

    def score(self, ids: IntArray, cos: FloatArray, sin: FloatArray, cache: MindSporeCache) -> FloatArray:
        """Return the scores ``(seq, vocab)`` behind every token of one sequence, over an empty cache."""
        return np.concatenate([scores for scores, _ in self._whole(ids, cos, sin, cache, states=False)])

    def states(self, ids: IntArray, cos: FloatArray, sin: FloatArray, cache: MindSporeCache) -> FloatArray:
        """Return the embedding and each block's output of one sequence, ``(num_layers + 1, seq, hidden)``."""
        return np.concatenate(
            [states for _, states in self._whole(ids, cos, sin, cache, states=True)], axis=1
        )

    def _whole(
        self, ids: IntArray, cos: FloatArray, sin: FloatArray, cache: MindSporeCache, *, states: bool
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        network = self._weights.refresh()
        cache.grow([0], [len(ids)])
        for ((_, first, length),) in _parts([len(ids)]):
            part = slice(first, first + length)
            wanted = np.arange(0 if states else length, dtype=np.int32)
            span = (0, cache.prefix + first, length)
            chunk = Chunk(ids[part].astype(np.int32), [span], cos[part], sin[part], wanted)
            kept = np.empty(
                (self._config.num_layers + 1, length if states else 0, self._config.hidden_size), np.float32
            )
            yield self._decoder.run(network, cache, chunk, kept if states else None), kept


def _parts(lengths: Sequence[int]) -> Iterator[list[tuple[int, int, int]]]:
    """Cut sequences into passes of bounded size: lists of (sequence, first token, tokens)."""
    part: list[tuple[int, int, int]] = []
    room = _CHUNK
    for i, length in enumerate(lengths):
        first = 0
        while first < length:
            taken = min(room, length - first)
            part.append((i, first, taken))
            first += taken
            room -= taken
            if room == 0:
                yield part
                part, room = [], _CHUNK
    if part:
        yield part
