"""Which rows make which batch: shuffled by seed, dealt to ranks, resumable from any step at no cost."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.domain.errors import InvalidInputError

__all__ = ["SamplingOrder"]


@frozen(kw_only=True)
class SamplingOrder:
    """The rows of every optimizer step as a pure function of the step's number.

    Each epoch is a new permutation drawn from ``(seed, epoch)``. Global batches are cut from it in order
    and dealt to ranks in turn, so that rank ``r`` of ``n`` sees every n-th row: the same rows meet in a
    global batch however many ranks there are.

    Args:
        num_rows: rows of the data set.
        global_batch: rows of one optimizer step, over all ranks and accumulation passes.
        shuffle: draw a permutation; otherwise rows come in file order.
        drop_remainder: leave out an epoch's last rows that fill no batch; otherwise its last batch is short.

    Raises:
        InvalidInputError: there are no rows, or fewer than one batch needs.
    """

    num_rows: int
    global_batch: int
    seed: int = 0
    shuffle: bool = True
    drop_remainder: bool = True
    rank: int = 0
    world_size: int = 1

    def __attrs_post_init__(self) -> None:
        if self.global_batch < 1 or self.global_batch % self.world_size:
            raise InvalidInputError(
                "a global batch is dealt evenly to the ranks",
                field="global_batch",
                expected=f"a multiple of {self.world_size}",
                found=self.global_batch,
            )
        if self.num_rows < 1 or self.steps_per_epoch < 1:
            raise InvalidInputError(
                "too few rows for one batch",
                field="num_rows",
                expected=f"at least {self.global_batch if self.drop_remainder else 1}",
                found=self.num_rows,
                hint="make the batch smaller, or set drop_remainder: False",
            )

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(self.num_rows, self.global_batch)
        return full if self.drop_remainder or not rest else full + 1

    def epoch_of(self, step: int) -> int:
        """Return the epoch, from 0, that step ``step``, from 0, belongs to."""
        return step // self.steps_per_epoch

    def rows_of_all_ranks(self, step: int) -> int:
        """Return the number of rows that all ranks together take in a step."""
        start = step % self.steps_per_epoch * self.global_batch
        return min(self.global_batch, self.num_rows - start)

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the row numbers of this rank's share of a step; the last of an epoch may be short."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch
        order = _permutation(self.num_rows, self.seed, epoch) if self.shuffle else np.arange(self.num_rows)
        return order[start : start + self.global_batch][self.rank :: self.world_size]


@lru_cache(maxsize=2)
def _permutation(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    order = np.random.default_rng([seed, epoch]).permutation(num_rows)
    order.flags.writeable = False
    return order
