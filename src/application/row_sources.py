"""What training and evaluation ask of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen

from glm3.domain.errors import ConfigError
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.ports.training import MicroBatch
from glm3.domain.run_config.data import DatasetConfig
from glm3.domain.training.batch_plan import BatchPlan
from glm3.domain.training.rows import PairRow
from glm3.domain.training.run_guard import RowPlace

__all__ = ["OpenPairs", "OpenRows", "Pairs", "RowsRequest", "TrainingRows"]


class TrainingRows(Protocol):
    """The batches of one rank; steps count from 0. ``notes`` tell what was skipped, and how much."""

    @property
    def num_rows(self) -> int: ...

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def notes(self) -> Sequence[str]: ...

    def micro_batches(self, step: int) -> Sequence[MicroBatch]:
        """Return what this rank computes in a step, one element a pass."""
        ...

    def places(self, step: int) -> Sequence[RowPlace]:
        """Return where the rows of a step stand in their file."""
        ...


@frozen(kw_only=True)
class RowsRequest:
    """Rows to train on, and how this rank's batches are cut; ``strict`` refuses what would be skipped."""

    dataset: DatasetConfig
    tokenizer: Tokenizer
    batch: BatchPlan
    rank: int = 0
    world_size: int = 1
    strict: bool = False

    @property
    def share(self) -> tuple[int, int]:
        """Which share of the rows this rank takes, and how many there are: ranks side by side take the same.

        Raises:
            ConfigError: the shares are not for groups of as many ranks each.
        """
        shares = self.batch.data_ranks
        together, left_over = divmod(self.world_size, shares)
        if left_over or not together:
            raise ConfigError(
                "rows are dealt to groups of as many ranks each",
                field="parallel_config.data_parallel",
                expected=f"a divisor of {self.world_size}",
                found=shares,
            )
        return self.rank // together, shares


class OpenRows(Protocol):
    """Read and encode the rows of a data set, reporting every fault of it."""

    def __call__(self, request: RowsRequest) -> TrainingRows: ...


@frozen
class Pairs:
    """Prompts with their answers, as text."""

    rows: Sequence[PairRow]
    notes: Sequence[str] = ()


class OpenPairs(Protocol):
    """Read the rows of a data set of prompts and answers, reporting every fault of it."""

    def __call__(self, dataset: DatasetConfig, *, strict: bool) -> Pairs: ...
