"""Port: files that say how the parameters of a job are cut."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from glm3.domain.layout.strategy import JobStrategy, Strategy

__all__ = ["StrategyStore"]


class StrategyStore(Protocol):
    """MindSpore's strategy files; a name that ends in ``.json`` means the JSON form, any other protobuf."""

    def read(self, path: Path) -> JobStrategy:
        """Return the cut of a job: from one file, or from a folder with those of all ranks or stages.

        In a folder, files of one stage must agree; one that an earlier merge left there
        (``merged_ckpt_strategy``) is not looked at.

        Raises:
            MissingFileError: there is no such file, or no strategy in the folder.
            CheckpointError: a file is damaged or names a parameter twice; the folder mixes both forms, its
                files disagree, or a stage is missing. Several faults are reported together.
        """
        ...

    def write(self, path: Path, stage: Strategy) -> None:
        """Write the file of one stage, whole or not at all.

        Raises:
            StorageError: the file system refused.
        """
        ...

    def write_merged(self, path: Path, job: JobStrategy) -> None:
        """Write one file of all stages, whole or not at all.

        Raises:
            StorageError: the file system refused.
        """
        ...
