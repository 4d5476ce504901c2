"""Where a run writes: the folders of MindFormers' ``output_dir``, and the finished model beside them."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from glm3.domain.rank_files import rank_folder

__all__ = ["STRATEGY_PREFIX", "OutputTree"]

STRATEGY_PREFIX = "ckpt_strategy_rank_"
"""How MindSpore begins the names of strategy files; a rank's number and ``.ckpt`` follow."""


@frozen
class OutputTree:
    """The places of one rank under ``root``; ``checkpoints`` moves those of checkpoints elsewhere."""

    root: Path
    rank: int = 0
    checkpoints: Path | None = None

    @property
    def checkpoint(self) -> Path:
        """Training checkpoints, and the pointers ``last`` and ``best`` to them."""
        return (self.checkpoints or self.root) / "checkpoint" / rank_folder(self.rank)

    @property
    def network(self) -> Path:
        """The weights alone, replaced at every save."""
        return (self.checkpoints or self.root) / "checkpoint_network" / rank_folder(self.rank)

    @property
    def trainable(self) -> Path:
        """The trained weights alone, replaced at every save."""
        return (self.checkpoints or self.root) / "checkpoint_trainable" / rank_folder(self.rank)

    @property
    def strategy(self) -> Path:
        """How each rank's slice was cut."""
        return self.root / "strategy"

    def strategy_of(self, rank: int) -> Path:
        """Return the file of one rank."""
        return self.strategy / f"{STRATEGY_PREFIX}{rank}.ckpt"

    @property
    def log(self) -> Path:
        return self.root / "log" / rank_folder(self.rank)

    def result(self, kind: str, run: int) -> Path:
        """Return the folder of the finished ``model`` or ``adapter``; a later run has one of its own."""
        return self.root / (kind if not run else f"{kind}_{run}")
