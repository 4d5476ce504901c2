"""A checkpoint store that keeps everything in memory, with the behaviour of the real ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from attrs import frozen

from glm3.domain.announced_tensors import AnnouncedTensors, absent_tensor, row_range
from glm3.domain.errors import MissingFileError
from glm3.domain.tensors import Array, TensorSpec

__all__ = ["MemoryCheckpoint", "MemoryCheckpointStore"]


@frozen
class MemoryCheckpoint:
    """A published checkpoint; also its own reader."""

    tensors: Mapping[str, TensorSpec]
    metadata: Mapping[str, str]
    arrays: Mapping[str, Array]

    def read(self, name: str, rows: slice | None = None) -> Array:
        if name not in self.tensors:
            raise absent_tensor(name, self.tensors, None)
        start, stop = row_range(self.tensors[name], rows)
        return self.arrays[name] if rows is None else self.arrays[name][start:stop]


class _Writer:
    def __init__(self, specs: Sequence[TensorSpec], path: Path) -> None:
        self.announced = AnnouncedTensors(specs, path)
        self.arrays = {spec.name: np.empty(spec.shape, spec.dtype.carrier) for spec in specs}

    def write(self, name: str, array: Array, rows: slice | None = None) -> None:
        numbers, _ = self.announced.accept(name, array, rows)
        self.arrays[name][... if rows is None else rows] = numbers


class MemoryCheckpointStore:
    """Keep checkpoints by path; ``saved`` shows what was published."""

    def __init__(self) -> None:
        self.saved: dict[Path, MemoryCheckpoint] = {}

    @property
    def format(self) -> str:
        return "memory"

    def recognises(self, path: Path) -> bool:
        return path in self.saved

    @contextmanager
    def open(self, path: Path) -> Iterator[MemoryCheckpoint]:
        if path not in self.saved:
            raise MissingFileError("no such checkpoint in memory", path=path)
        yield self.saved[path]

    @contextmanager
    def create(
        self, path: Path, specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None
    ) -> Iterator[_Writer]:
        writer = _Writer(specs, path)
        yield writer
        writer.announced.finish()
        self.saved[path] = MemoryCheckpoint(
            tensors={spec.name: spec for spec in specs}, metadata=dict(metadata or {}), arrays=writer.arrays
        )
