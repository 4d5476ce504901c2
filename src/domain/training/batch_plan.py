"""How many rows a step takes, how many steps a run has, and where its checkpoints are cut."""

from __future__ import annotations

from attrs import frozen

from glm3.domain.errors import ConfigError
from glm3.domain.run_config import RunConfig
from glm3.domain.run_config.parallel import DATA_PARALLEL_MODES

__all__ = ["BatchPlan"]


@frozen(kw_only=True)
class BatchPlan:
    """The arithmetic of batches.

    ``rows_per_pass`` sequences are computed at once, ``passes`` times a step, on each of ``data_ranks``.
    Source: MindFormers. In its (semi-)automatic parallel modes an interleaved batch counts as further
    passes, and with a pipeline its micro-batches take the place of accumulation; elsewhere only
    accumulation counts.
    """

    rows_per_pass: int
    passes: int
    data_ranks: int

    @classmethod
    def of(cls, config: RunConfig, world_size: int = 1) -> BatchPlan:
        """Read the plan off a run on ``world_size`` ranks."""
        runner, cut = config.runner_config, config.parallel_config
        accumulation = runner.gradient_accumulation_steps
        if not config.use_parallel:
            return cls(rows_per_pass=runner.batch_size, passes=accumulation, data_ranks=world_size)
        if config.parallel.parallel_mode in DATA_PARALLEL_MODES:
            return cls(rows_per_pass=runner.batch_size, passes=accumulation, data_ranks=world_size)
        passes = cut.micro_batch_num if cut.pipeline_stage > 1 else accumulation
        return cls(
            rows_per_pass=runner.batch_size,
            passes=passes * config.micro_batch_interleave_num,
            data_ranks=cut.data_parallel,
        )

    @property
    def rows_per_rank(self) -> int:
        """Rows of one step on one rank."""
        return self.rows_per_pass * self.passes

    @property
    def global_batch(self) -> int:
        """Rows of one step over all ranks."""
        return self.rows_per_rank * self.data_ranks

    @staticmethod
    def sink_size(config: RunConfig, steps_per_epoch: int) -> int:
        """Return the steps of one sink; it cuts the names of checkpoints and nothing else.

        Raises:
            ConfigError: the size is neither positive nor -1.
        """
        runner = config.runner_config
        if not runner.sink_mode or runner.sink_size == -1:
            return steps_per_epoch
        if runner.sink_size < 1:
            raise ConfigError(
                "invalid value",
                field="runner_config.sink_size",
                expected="more than 0, or -1 for a whole epoch",
                found=runner.sink_size,
            )
        return runner.sink_size
