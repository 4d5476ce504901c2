"""Who holds which row of the KV cache, and what is in it; ended requests leave theirs for others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from glm3.domain.ports.model import KVCache

__all__ = ["MIN_SHARED", "KVRows", "common_prefix"]

MIN_SHARED = 16
"""Tokens worth a copy of a block, or waiting for another request to compute them."""

Ids = NDArray[np.int32]


class KVRows:
    """The rows of one cache and the ids they hold.

    A row is empty, running, or kept: its request has ended, and what it holds is there for a prompt that
    begins so, until its blocks or the row are needed. All running rows can always grow to the length that was
    agreed when they were claimed.
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self._ids = np.zeros((cache.rows, cache.capacity), np.int32)
        self._lengths = [0] * cache.rows
        self._empty = list(range(cache.rows))
        self._kept: dict[int, None] = {}  # in order, the one used least recently first
        self._running: dict[int, int] = {}  # and the tokens that each may come to hold
        self._refused: Ids | None = None  # the prompt that found too few blocks since the last release

    @property
    def tokens(self) -> int:
        """Tokens for which blocks are held, those of ended requests included."""
        return (self.cache.blocks - self.cache.free_blocks) * self.cache.block_size

    def length(self, row: int) -> int:
        """Return how many ids the row holds."""
        return self._lengths[row]

    def best_prefix(self, prompt: Ids) -> int:
        """Return how many of the prompt's first ids some row holds; never all of them."""
        return int(self._shared(prompt).max())

    def claim(self, prompt: Ids, most: int) -> tuple[int, int] | None:
        """Take a row for ``prompt``, which begins with what any row holds of it.

        A kept row is taken over where that loses less than half of what it holds, so that another
        conversation that merely begins alike (a common system message) stays. Otherwise the blocks of the
        beginning are shared. Fewer rows may be running than the cache has.

        Args:
            prompt: ids, not empty.
            most: tokens that the row may come to hold.

        Returns:
            The row, and how many ids of the prompt it holds; None where there are too few blocks, kept rows
            given up, for it and all that run to become as long as they may.
        """
        if self._refused is prompt:
            return None
        shared = self._shared(prompt)
        kept = int(shared.max())
        best = np.flatnonzero(shared == kept).tolist()
        source = next((row for row in best if row in self._kept), best[0])
        if source in self._kept and 2 * kept >= self._lengths[source]:
            row = source
            self._truncate(row, kept)
        else:
            kept = kept if kept >= MIN_SHARED else 0
            row = self._vacant(source)
            kept = self._share(source, row, kept)
        if self.cache.demand({**self._running, row: most}) > self.cache.blocks:
            if row in self._empty:
                self._truncate(row, 0)
            self._refused = prompt
            return None
        if row in self._kept:
            del self._kept[row]
        else:
            self._empty.remove(row)
        self._running[row] = most
        return row, kept

    def make_room(self, rows: Sequence[int], counts: Sequence[int]) -> None:
        """Give up kept rows until ``counts[i]`` ids can be appended to the running ``rows[i]``."""
        cache = self.cache
        if cache.free_blocks >= 2 * len(rows) + sum(counts) // cache.block_size:  # a copy, and a new one each
            return
        while self._kept and cache.growth(rows, counts) > cache.free_blocks:
            self._give_up(next(iter(self._kept)))

    def room_for_guesses(self, rows: Sequence[int], wanted: Sequence[int]) -> list[int]:
        """Return how many of ``wanted[i]`` ids fit behind the next one of ``rows[i]``; nothing is given up.

        There must be room for that next one.
        """
        growth = self.cache.growth
        if growth(rows, [1 + count for count in wanted]) <= self.cache.free_blocks:
            return list(wanted)
        return [
            next(fits for fits in range(count, -1, -1) if growth([row], [1 + fits]) == growth([row], [1]))
            for row, count in zip(rows, wanted, strict=True)
        ]

    def drop_guesses(self, row: int) -> None:
        """Forget what the model has appended to the row and nobody has taken note of."""
        self._truncate(row, self._lengths[row])

    def append(self, row: int, tokens: Sequence[int]) -> None:
        """Take note of ids that the model has appended to the row."""
        start = self._lengths[row]
        self._ids[row, start : start + len(tokens)] = tokens
        self._lengths[row] = start + len(tokens)

    def release(self, row: int) -> None:
        """Give the row back; what it holds stays for a prompt that begins so."""
        del self._running[row]
        if self._lengths[row]:
            self._kept[row] = None
        else:
            self._empty.append(row)
        self._refused = None

    def forget(self, row: int) -> None:
        """Drop what a row holds: its contents cannot be trusted."""
        self._truncate(row, 0)

    def _vacant(self, source: int) -> int:
        """Return an empty row; without one, the kept row used least recently is given up."""
        if not self._empty:
            self._give_up(next((row for row in self._kept if row != source), source))
        return self._empty[0]

    def _give_up(self, row: int) -> None:
        del self._kept[row]
        self._truncate(row, 0)
        self._empty.append(row)

    def _share(self, source: int, row: int, length: int) -> int:
        """Let a row begin as another does; return by how much: by nothing where that one was given up."""
        length = min(length, self._lengths[source])
        if length:
            self.cache.copy_row(source, row, length)
            self._ids[row, :length] = self._ids[source, :length]
            self._lengths[row] = length
        return length

    def _truncate(self, row: int, length: int) -> None:
        # A call that failed may have left more in the cache than was noted here.
        if length < self.cache.length(row):
            self.cache.truncate(row, length)
        self._lengths[row] = length

    def _shared(self, prompt: Ids) -> NDArray[np.int64]:
        """Return for each row how many of the prompt's first ids it holds; never all of them."""
        most = len(prompt) - 1
        differ = np.ones((len(self._ids), most + 1), np.bool_)
        differ[:, :most] = self._ids[:, :most] != prompt[:most]
        shared: NDArray[np.int64] = np.minimum(differ.argmax(1), self._lengths)
        return shared


def common_prefix(one: Ids, other: Ids) -> int:
    """Return how many ids two sequences have in common at their beginning."""
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length
