"""Port: the configuration files of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from glm3.domain.run_config import RunConfig

__all__ = ["RunConfigReader"]


class RunConfigReader(Protocol):
    """Read a file and the user's overrides into a validated record."""

    def read(self, path: Path, overrides: Sequence[str] = ()) -> RunConfig:
        """Return the run that ``path`` describes, with ``overrides`` (``a.b=value``) applied in order.

        Raises:
            MissingFileError: the file, or one that it builds on, does not exist.
            ConfigError: the file is no YAML; or, as MultipleFaultsError, everything wrong with its keys.
            UsageError: an override is not of the form ``key=value``.
        """
        ...
