"""Use case: write how each rank's parameters would be cut, without loading or training them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from glm3.application.model_source import ModelSources
from glm3.application.plan import network_of
from glm3.application.saving_setup import output_tree
from glm3.domain.errors import UsageError
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.layout.strategy import JobStrategy
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.strategy_store import StrategyStore
from glm3.domain.positional_io import storage_errors
from glm3.domain.rank_files import ranks_text
from glm3.domain.run_config import RunConfig, check_for
from glm3.domain.training.job_cut import job_cut
from glm3.domain.training.output_tree import STRATEGY_PREFIX
from glm3.domain.training.setup import adapter_config, network_cut

__all__ = ["SavedStrategies", "StrategySaver"]


@frozen
class SavedStrategies:
    """The cut of a job, and the files that were written of it."""

    job: JobStrategy
    files: tuple[Path, ...]


@frozen(kw_only=True)
class StrategySaver:
    """Write ``output_dir/strategy/ckpt_strategy_rank_N.ckpt`` as a run of the same file would.

    Of a run of adapters the files tell the frozen network's cut too, unless
    ``strategy_ckpt_config.only_trainable_params`` leaves it out.
    """

    sources: ModelSources
    stores: Sequence[CheckpointStore]
    strategies: StrategyStore

    def save(
        self, config: RunConfig, *, rank: int | None = None, world_size: int | None = None
    ) -> SavedStrategies:
        """Write the files of all ranks, or that of one ``rank`` of a job of ``world_size``.

        Alone, a process counts as many ranks as ``parallel_config`` says.

        Raises:
            MultipleFaultsError: the file's numbers of ways are wrong, or do not divide the parameters.
            UsageError: files of a larger job lie there already, or ``load_checkpoint`` names no model.
            ConfigError: there are more stages than layers, or the adapter's keys are wrong.
            StorageError: the file system refused.
        """
        check_for(config, device_count=world_size)
        ranks = config.parallel_config.ranks if world_size is None else world_size
        job = job_cut(
            network_of(config, self.sources, self.stores),
            adapter_config(config),
            network_cut(config, ranks) or NetworkCut(),
            frozen_too=not config.parallel.strategy_ckpt_config.only_trainable_params,
        )
        tree = output_tree(config, 0)
        _require_no_others(tree.strategy, ranks)
        files = []
        for number in range(ranks) if rank is None else (rank,):
            files.append(tree.strategy_of(number))
            self.strategies.write(files[-1], job.stages[number // job.stages[0].num_ranks])
        return SavedStrategies(job, tuple(files))


def _require_no_others(folder: Path, ranks: int) -> None:
    """Refuse to leave a folder in which the files of two jobs lie: it could not be read."""
    with storage_errors(folder):
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    found = (re.fullmatch(rf"{STRATEGY_PREFIX}(\d+)\.(?:ckpt|json)", name) for name in names)
    others = sorted(number for match in found if match and (number := int(match[1])) >= ranks)
    if others:
        raise UsageError(
            f"strategy files of other ranks lie here: rank {ranks_text(others)}",
            path=folder,
            expected=f"at most {ranks} ranks",
            hint="remove them, or choose another output_dir",
        )
