"""``only_save_strategy`` of a run's file: write its strategy files and leave."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from glm3.entrypoints.cli.output import answer

if TYPE_CHECKING:
    from glm3.domain.run_config import RunConfig
    from glm3.entrypoints.cli.settings import Settings

__all__ = ["write_strategies"]


def write_strategies(settings: Settings, config: RunConfig) -> None:
    """Write the strategy files of all ranks; in a job that was launched, each rank writes its own.

    Raises:
        Glm3Error: see :meth:`glm3.application.save_strategies.StrategySaver.save`.
    """
    from glm3.application.save_strategies import StrategySaver
    from glm3.domain.rank_files import ranks_text
    from glm3.entrypoints.cli.loading import container

    services = container(settings)
    saver = StrategySaver(
        sources=services.sources(),
        stores=services.checkpoint_stores(),
        strategies=services.strategies(),
    )
    size = int(os.environ.get("RANK_SIZE") or 1)
    rank = int(os.environ.get("RANK_ID") or 0)
    saved = saver.save(config) if size == 1 else saver.save(config, rank=rank, world_size=size)
    job = saved.job
    parameters = len({name for stage in job.stages for name in stage.layouts})
    which = ranks_text(range(job.num_ranks) if size == 1 else [rank])
    stages = f", {job.num_stages} stages" if job.num_stages > 1 else ""
    answer(f"rank {which} of {job.num_ranks}{stages}: {parameters} parameters")
    answer(str(saved.files[0].parent))
