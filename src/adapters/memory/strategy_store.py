"""Strategies that were never in a file."""

from __future__ import annotations

from pathlib import Path

from glm3.domain.errors import MissingFileError
from glm3.domain.layout.job_files import MERGED_NAME, join_files
from glm3.domain.layout.strategy import JobStrategy, Strategy

__all__ = ["MemoryStrategyStore"]


class MemoryStrategyStore:
    """Keep strategies by path; a path's parent is its folder."""

    def __init__(self) -> None:
        self._files: dict[Path, tuple[Strategy, ...]] = {}

    def read(self, path: Path) -> JobStrategy:
        """See :class:`glm3.domain.ports.strategy_store.StrategyStore`."""
        found = {file: stages for file, stages in self._files.items() if path in (file, file.parent)}
        files = {file: stages for file, stages in found.items() if file.stem != MERGED_NAME} or found
        if not files:
            raise MissingFileError("no such strategy", path=path)
        return join_files(files)

    def write(self, path: Path, stage: Strategy) -> None:
        """See :class:`glm3.domain.ports.strategy_store.StrategyStore`."""
        self._files[path] = (stage,)

    def write_merged(self, path: Path, job: JobStrategy) -> None:
        """See :class:`glm3.domain.ports.strategy_store.StrategyStore`."""
        self._files[path] = job.stages
