"""Use case: make a checkpoint that is cut for some ranks usable by a job of others, before it is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve, frozen

from glm3.application.merge_checkpoints import MergeRequest, MergeResult, merge_checkpoints
from glm3.application.named_strategy import named_strategy
from glm3.application.rank_agreement import RankAgreement
from glm3.application.slice_targets import Selection
from glm3.application.training_start import RunRecord
from glm3.domain.errors import CheckpointError, ConfigError, Glm3Error
from glm3.domain.layout.strategy import JobStrategy
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.strategy_store import StrategyStore
from glm3.domain.positional_io import storage_errors
from glm3.domain.rank_files import find_rank_files, rank_folder, rank_of_folder
from glm3.domain.run_config import RunConfig
from glm3.domain.training.setup import network_cut

__all__ = ["AutoTransform"]

_FOLDER, _STRATEGY = "transformed_checkpoint", "strategy"


@frozen(kw_only=True)
class AutoTransform:
    """Replace a folder of ranks' slices by what they make together.

    Where ``src_strategy_path_or_dir`` names no strategy, that of the run whose output the folder is part of
    is taken, from the folder ``strategy`` beside it.
    """

    stores: Sequence[CheckpointStore]
    strategies: StrategyStore
    agreement: RankAgreement | None = None

    def apply(self, config: RunConfig, rank: int = 0, world_size: int = 1) -> RunConfig:
        """Return the configuration with ``load_checkpoint`` naming something that every rank can load.

        Rank 0 merges into ``output_dir/transformed_checkpoint``, which it empties first, and leaves
        ``transform_succeed_rank_0.txt`` or ``transform_failed_rank_0.txt`` there; the others wait. Parts of a
        run that goes on with as many ranks stay as they are.

        Raises:
            ConfigError: the checkpoint is cut and ``auto_trans_ckpt`` is off.
            CheckpointError: another rank could not merge, or the result is on a disk of its own.
            Glm3Error: see :func:`glm3.application.merge_checkpoints.merge_checkpoints`.
        """
        source = None if config.load_checkpoint is None else Path(config.load_checkpoint)
        if source is None or not _holds_ranks(source):
            return config
        target = Path(config.output_dir) / _FOLDER
        if target.resolve() in (source.resolve(), *source.resolve().parents):
            return _complete(config, source)  # of an earlier start, which would be emptied
        strategy = self._strategy(config, source)
        if strategy is None or not _is_cut(strategy):
            return config if world_size > 1 or config.resume_training else _complete(config, source)
        cut = network_cut(config, world_size)
        ways = 1 if cut is None else cut.model_parallel
        if config.resume_training and _is_part_of(source, rank, world_size, ways):
            return config
        if not config.auto_trans_ckpt:
            raise ConfigError(
                f"load_checkpoint is cut into slices of {strategy.num_ranks} ranks",
                path=source,
                field="auto_trans_ckpt",
                expected=True,
                found=False,
                hint="auto_trans_ckpt: True merges them before they are loaded; so does glm3 merge",
            )
        self._merge_once(config, source, target, strategy, rank)
        return evolve(config, load_checkpoint=str(_only_file(target)))

    def _strategy(self, config: RunConfig, source: Path) -> JobStrategy | None:
        named = config.src_strategy_path_or_dir
        beside = source.parent / _STRATEGY
        if named is None and beside.is_dir() and any(beside.iterdir()):
            named = str(beside)
        return named_strategy(named, self.strategies)

    def _merge_once(
        self, config: RunConfig, source: Path, target: Path, strategy: JobStrategy, rank: int
    ) -> None:
        error: Glm3Error | None = None
        if rank == 0:
            request = MergeRequest(
                source=source,
                target=target,
                source_strategy=strategy,
                select=Selection.ALL if config.resume_training else Selection.WEIGHTS,
            )
            try:
                self._merge(request)
            except Glm3Error as caught:
                error = caught
        failed = error is not None
        if self.agreement is not None:
            failed = self.agreement.any(lambda: error is not None)
        if error is not None:
            raise error
        if failed or not target.is_dir():
            raise CheckpointError(
                "rank 0 could not merge the slices" if failed else "rank 0 has merged them on another disk",
                path=target,
                hint="its own message says why" if failed else "output_dir must be on a disk of all ranks",
            )

    def _merge(self, request: MergeRequest) -> MergeResult:
        """Merge and leave a marker of how it went, as MindFormers does."""
        target = request.target
        with storage_errors(target):
            if target.exists():
                shutil.rmtree(target)
        try:
            result = merge_checkpoints(request, self.stores)
            self._take_record(request.source, target / rank_folder(0))
        except Glm3Error as error:
            _mark(target, "failed", str(error))
            raise
        _mark(target, "succeed", "")
        return result

    def _take_record(self, source: Path, folder: Path) -> None:
        """Let a run that goes on from the result know what its first part began with."""
        record = RunRecord.read(source / rank_folder(0))
        if record is not None:
            evolve(record, rank=0, sharing=None, model_parallel=1).write(folder)


def _mark(target: Path, how: str, text: str) -> None:
    with storage_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        (target / f"transform_{how}_rank_0.txt").write_text(text, encoding="utf-8")


def _holds_ranks(folder: Path) -> bool:
    return folder.is_dir() and any(
        rank_of_folder(e.name) is not None and e.is_dir() for e in folder.iterdir()
    )


def _is_cut(strategy: JobStrategy) -> bool:
    return strategy.num_stages > 1 or any(
        max(layout.grid, default=1) > 1 for layout in strategy.stages[0].layouts.values()
    )


def _is_part_of(source: Path, rank: int, world_size: int, ways: int) -> bool:
    record = RunRecord.read(source / rank_folder(rank))
    own = (rank, world_size, ways)
    return record is not None and (record.rank, record.sharing, record.model_parallel) == own


def _complete(config: RunConfig, source: Path) -> RunConfig:
    """Name the newest file of rank 0: every rank holds all of it."""
    return evolve(config, load_checkpoint=str(find_rank_files(source).files[0]))


def _only_file(target: Path) -> Path:
    return find_rank_files(target).files[0]
