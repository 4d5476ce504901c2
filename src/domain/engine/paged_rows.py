"""Rows of a KV cache over one pool of blocks: the bookkeeping that every model's cache has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from glm3.domain.engine.block_manager import BlockManager
from glm3.domain.errors import BackendError
from glm3.domain.model_inputs import check_row_length

__all__ = ["PagedRows"]

_PREFIX = -1  # the sequence of the prefix, which every row begins by sharing


class PagedRows(ABC):
    """Implement :class:`~glm3.domain.ports.model.KVCache`; who inherits has the memory.

    Rows take blocks as they grow. What is common to rows is shared until one of them writes; then
    :meth:`copy_block` is asked for a copy.

    Args:
        rows: sequences.
        capacity: tokens a row may hold.
        block_size: places of a block.
        pool_tokens: how many tokens the pool is for, all rows together; None for as many as they may hold.
            It has room for one full row at least.
        prefix: places at the beginning of each row that count as no token's.
    """

    def __init__(
        self, rows: int, capacity: int, block_size: int, pool_tokens: int | None = None, prefix: int = 0
    ) -> None:
        self._rows = rows
        self._capacity = capacity
        self.prefix = prefix
        width = -(-(prefix + capacity) // block_size)
        own = width - prefix // block_size  # blocks of a full row that no other one shares
        blocks = rows * own
        if pool_tokens is not None:
            blocks = min(blocks, max(own, -(-pool_tokens // block_size)))
        self.manager = BlockManager(-(-prefix // block_size) + blocks, block_size)
        self.tables: NDArray[np.int32] = np.zeros((rows, width), np.int32)
        self.manager.allocate(_PREFIX, prefix)
        for row in range(rows):
            self._begin(row)

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def block_size(self) -> int:
        return self.manager.block_size

    @property
    def blocks(self) -> int:
        return self.manager.num_blocks

    @property
    def free_blocks(self) -> int:
        return self.manager.free_blocks

    @property
    def prefix_slots(self) -> list[int]:
        """Where in the pool the places of the prefix are."""
        return self.manager.slots(_PREFIX)

    def length(self, row: int) -> int:
        return self.manager.length(row) - self.prefix

    def table(self, row: int) -> tuple[int, ...]:
        """Return the blocks of a row in order."""
        return self.manager.table(row)

    def slots(self, row: int, start: int = 0) -> list[int]:
        """Return where in the pool the row's tokens from ``start`` on are: block times size plus place."""
        return self.manager.slots(row, self.prefix + start)

    def truncate(self, row: int, length: int) -> None:
        check_row_length(self.length(row), length)
        if length:
            self.manager.truncate(row, self.prefix + length)
        else:
            self.manager.free(row)
            self._begin(row)

    def copy_row(self, source: int, target: int, length: int | None = None) -> None:
        length = self.length(source) if length is None else length
        check_row_length(self.length(source), length)
        if source == target:
            self.truncate(source, length)
            return
        self.manager.free(target)
        if length:
            self._begin(target, source, self.prefix + length)
        else:
            self._begin(target)

    def growth(self, rows: Sequence[int], counts: Sequence[int]) -> int:
        return self.manager.growth(zip(rows, counts, strict=True))

    def demand(self, lengths: Mapping[int, int]) -> int:
        grown = {row: self.prefix + length for row, length in lengths.items()}
        return self.manager.demand({_PREFIX: self.prefix, **grown})

    @abstractmethod
    def copy_block(self, source: int, target: int) -> None:
        """Make a block of the pool hold what another one holds."""

    def grow(self, rows: Sequence[int], counts: Sequence[int]) -> None:
        """Make room for ``counts[i]`` tokens in ``rows[i]``, which are to be written next.

        Raises:
            BackendError: the pool has too few free blocks; nothing is changed.
        """
        manager = self.manager
        rest = [  # nearly always nothing
            (row, count)
            for row, count in zip(rows, counts, strict=True)
            if not manager.append_in_place(row, count)
        ]
        needed, free = manager.growth(rest), manager.free_blocks
        if needed > free:
            for row, count in set(zip(rows, counts, strict=True)).difference(rest):
                manager.truncate(row, manager.length(row) - count)
            raise BackendError(
                "block pool is out of memory",
                field="pool_tokens",
                expected=f"{needed} free blocks of {self.block_size} tokens",
                found=f"{free} of {self.blocks}",
                hint="make a larger cache, or shorten rows that are not needed any more",
            )
        for row, count in rest:
            for source, target in manager.append(row, count):
                self.copy_block(source, target)
            self._note(row)

    def _begin(self, row: int, source: int = _PREFIX, length: int | None = None) -> None:
        self.manager.fork(source, row, length)
        self._note(row)

    def _note(self, row: int) -> None:
        blocks = self.manager.table(row)
        self.tables[row, : len(blocks)] = blocks
