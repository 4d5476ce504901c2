"""Strategy files on disk."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from glm3.adapters.strategy import json_form, protobuf
from glm3.adapters.strategy.stored import StoredStrategy, stored_job, stored_stage, to_stages
from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.errors import CheckpointError, InvalidInputError, MissingFileError, raise_faults
from glm3.domain.layout.job_files import MERGED_NAME, join_files
from glm3.domain.layout.strategy import JobStrategy, Strategy
from glm3.domain.positional_io import open_for_reading, read_at

__all__ = ["FileStrategyStore"]

_SUFFIXES = (".ckpt", ".json")
_MOST_BYTES = 256 * 2**20  # a file takes about 60 bytes a parameter and 2 MB for the largest networks known


class FileStrategyStore:
    """MindSpore's strategy files, protobuf and JSON."""

    def read(self, path: Path) -> JobStrategy:
        """See :class:`glm3.domain.ports.strategy_store.StrategyStore`."""
        files = _files_in(path) if path.is_dir() else [path]
        stages: dict[Path, tuple[Strategy, ...]] = {}
        faults: list[InvalidInputError] = []
        for file in files:
            try:
                stages[file] = _read(file)
            except InvalidInputError as error:
                faults += getattr(error, "faults", (error,))
        raise_faults(f"the strategies of {path} are not usable", faults)
        return join_files(stages)

    def write(self, path: Path, stage: Strategy) -> None:
        """See :class:`glm3.domain.ports.strategy_store.StrategyStore`."""
        _write(path, stored_stage(stage))

    def write_merged(self, path: Path, job: JobStrategy) -> None:
        """See :class:`glm3.domain.ports.strategy_store.StrategyStore`."""
        _write(path, stored_job(job))


def _files_in(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    files = [file for file in found if file.stem != MERGED_NAME] or found
    if not files:
        raise MissingFileError(
            "no strategy file in the folder", path=folder, expected="files that end in .ckpt or .json"
        )
    if len({file.suffix for file in files}) > 1:
        raise CheckpointError(
            "the folder mixes strategies in protobuf and in JSON form",
            path=folder,
            found=", ".join(file.name for file in files),
            hint="keep those of one run",
        )
    return files


def _read(path: Path) -> tuple[Strategy, ...]:
    with open_for_reading(path) as (descriptor, size):
        if size > _MOST_BYTES:
            raise CheckpointError("far too large for a strategy", path=path, found=f"{size} bytes")
        content = read_at(descriptor, 0, size, path)
    try:
        stored = _form_of(path).decode(content)
    except InvalidInputError as error:
        for fault in getattr(error, "faults", (error,)):
            fault.path = path
        raise
    return to_stages(stored, path)


def _write(path: Path, stored: StoredStrategy) -> None:
    content = _form_of(path).encode(stored)
    with staged_file(path, len(content)) as staged:
        write_durably(staged, content)


def _form_of(path: Path) -> ModuleType:
    return json_form if path.suffix == ".json" else protobuf
