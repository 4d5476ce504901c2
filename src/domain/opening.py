"""Make an answer begin with one of several given sequences of ids."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Opening"]


class Opening:
    """Follow one answer from its first id; after one sequence is complete all ids are allowed."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self._left = [tuple(sequence) for sequence in sequences if sequence]
        self._position = 0

    def allowed(self) -> list[int] | None:
        """Return the ids that may come next, or None where any may."""
        return sorted({sequence[self._position] for sequence in self._left}) or None

    def accept(self, token: int) -> None:
        """Take note of the id that was chosen."""
        left = [sequence for sequence in self._left if sequence[self._position] == token]
        self._position += 1
        self._left = [] if any(len(sequence) == self._position for sequence in left) else left
