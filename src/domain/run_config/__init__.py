"""The configuration of a run: one record per section of the files in ``configs/glm3``."""

from glm3.domain.run_config.checks import check_for, check_sizes
from glm3.domain.run_config.run import RUN_MODES, RunConfig, build_run_config

__all__ = ["RUN_MODES", "RunConfig", "build_run_config", "check_for", "check_sizes"]
