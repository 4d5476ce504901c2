"""Who holds which row of the KV cache, and what is in it; finished requests leave theirs for others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from glm3.domain.ports.model import KVCache

__all__ = ["MIN_SHARED", "KVRows", "common_prefix"]

MIN_SHARED = 16
"""Tokens worth copying a row, or waiting for another request to compute them."""

Ids = NDArray[np.int32]


class KVRows:
    """The rows of one cache and the ids they hold."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self._ids = np.zeros((cache.rows, cache.capacity), np.int32)
        self._lengths = [0] * cache.rows
        self._free = list(range(cache.rows))  # least recently used first

    @property
    def free(self) -> int:
        """Rows that nobody holds."""
        return len(self._free)

    @property
    def tokens(self) -> int:
        """Tokens held, those of finished requests included."""
        return sum(self._lengths)

    def length(self, row: int) -> int:
        """Return how many ids the row holds."""
        return self._lengths[row]

    def best_prefix(self, prompt: Ids) -> int:
        """Return how many of the prompt's first ids some row holds; never all of them."""
        return max(self._shared(row, prompt) for row in range(len(self._lengths)))

    def claim(self, prompt: Ids) -> tuple[int, int]:
        """Take a free row for ``prompt`` and make it hold the longest beginning that any row has.

        A free row is taken over where that loses less than half of what it holds, so that another
        conversation that merely begins alike (a common system message) keeps its own. Otherwise the
        beginning is copied into the row that was used least recently. At least one row must be free.

        Returns:
            The row, and how many ids of the prompt it holds.
        """
        shared = [self._shared(row, prompt) for row in range(len(self._lengths))]
        source = max(range(len(shared)), key=lambda row: (shared[row], row in self._free))
        row, kept = self._free[0], shared[source]
        if source in self._free and 2 * kept >= self._lengths[source] > 0:
            row = source
        elif kept >= MIN_SHARED and source != row:
            self.cache.copy_row(source, row)
            self._ids[row, :kept] = self._ids[source, :kept]
        else:
            kept = shared[row]
        self._free.remove(row)
        self._truncate(row, kept)
        return row, kept

    def append(self, row: int, tokens: Sequence[int]) -> None:
        """Take note of ids that the model has appended to the row."""
        start = self._lengths[row]
        self._ids[row, start : start + len(tokens)] = tokens
        self._lengths[row] = start + len(tokens)

    def release(self, row: int) -> None:
        """Give the row back; what it holds stays for a prompt that begins so."""
        if self._lengths[row]:
            self._free.append(row)
        else:
            self._free.insert(0, row)

    def forget(self, row: int) -> None:
        """Drop what a row holds: its contents cannot be trusted."""
        self._truncate(row, 0)

    def _truncate(self, row: int, length: int) -> None:
        # A call that failed may have left more in the cache than was noted here.
        if length < self.cache.length(row):
            self.cache.truncate(row, length)
        self._lengths[row] = length

    def _shared(self, row: int, prompt: Ids) -> int:
        return min(common_prefix(self._ids[row, : self._lengths[row]], prompt), len(prompt) - 1)


def common_prefix(one: Ids, other: Ids) -> int:
    """Return how many ids two sequences have in common at their beginning."""
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length
