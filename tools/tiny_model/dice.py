"""Seeded choice, so that the same seed always writes the same corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

__all__ = ["Dice"]

T = TypeVar("T")


class Dice:
    """A seeded source of choices."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def pick(self, items: Sequence[T]) -> T:
        """Return one item."""
        return items[int(self._rng.integers(len(items)))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """Return ``count`` distinct items in their given order."""
        chosen = self._rng.choice(len(items), size=min(count, len(items)), replace=False)
        return [items[i] for i in sorted(chosen)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return all items in a new order."""
        return [items[i] for i in self._rng.permutation(len(items))]

    def chance(self, probability: float) -> bool:
        """Return true with the given probability."""
        return bool(self._rng.random() < probability)

    def between(self, low: int, high: int) -> int:
        """Return an integer, both ends included."""
        return int(self._rng.integers(low, high + 1))
