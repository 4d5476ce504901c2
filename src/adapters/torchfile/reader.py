"""Read tensors of one or many PyTorch files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glm3.adapters.torchfile.pickled import load_state, to_numpy, to_spec
from glm3.domain.announced_tensors import absent_tensor, row_range
from glm3.domain.errors import CheckpointError
from glm3.domain.tensors import Array, TensorSpec

__all__ = ["TorchCheckpointReader"]

_REOPEN_AFTER = 256 << 20
"""Bytes read through one mapping before it is dropped: torch maps whole files, and pages once touched
count as this process's memory until the mapping goes."""


class TorchCheckpointReader:
    """A reader over files that are mapped one at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._home: dict[str, Path] = {}
        self._tensors: dict[str, TensorSpec] = {}
        for path in paths:
            for name, tensor in load_state(path).items():
                if name in self._home:
                    raise CheckpointError(
                        "is stored twice",
                        path=path,
                        field=name,
                        found=f"{self._home[name].name} and {path.name}",
                    )
                self._home[name] = path
                self._tensors[name] = to_spec(name, tensor, path)
        self._files = {path: tuple(n for n, home in self._home.items() if home == path) for path in paths}
        self._mapped: tuple[Path, dict[str, Any]] | None = None
        self._read_bytes = 0

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return self._tensors

    @property
    def metadata(self) -> Mapping[str, str]:
        return {}

    @property
    def files(self) -> Mapping[Path, Sequence[str]]:
        return self._files

    def read(self, name: str, rows: slice | None = None) -> Array:
        if name not in self._tensors:
            raise absent_tensor(name, self._tensors, next(iter(self._files), None))
        start, stop = row_range(self._tensors[name], rows)
        tensor = self._state_of(self._home[name])[name]
        array = to_numpy(tensor if rows is None else tensor[start:stop])
        self._read_bytes += array.nbytes
        return array

    def close(self) -> None:
        """Drop the mapping."""
        self._mapped = None

    def _state_of(self, path: Path) -> dict[str, Any]:
        if self._mapped is None or self._mapped[0] != path or self._read_bytes > _REOPEN_AFTER:
            self._mapped = None  # before the next is mapped
            self._mapped = path, load_state(path)
            self._read_bytes = 0
        return self._mapped[1]
