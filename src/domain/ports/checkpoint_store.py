"""Port: named tensors on disk, read lazily and written atomically."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from glm3.domain.tensors import Array, TensorSpec

__all__ = ["CheckpointReader", "CheckpointStore", "CheckpointWriter", "ListsFiles"]


class CheckpointReader(Protocol):
    """An open checkpoint, possibly of many files. Headers are read and checked when it is opened."""

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Every tensor by the name it has in the file, in file order."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """Free text the file carries beside its tensors."""
        ...

    def read(self, name: str, rows: slice | None = None) -> Array:
        """Return one tensor, or the rows ``rows`` of its first axis, without reading anything else.

        bfloat16 comes as bit patterns, see :mod:`glm3.domain.tensors`. The array may be a read-only view
        of a mapped file.

        Raises:
            CheckpointError: there is no such tensor.
        """
        ...


@runtime_checkable
class ListsFiles(Protocol):
    """What a reader of real files can tell besides."""

    @property
    def files(self) -> Mapping[Path, Sequence[str]]:
        """The names of the tensors that each file stores, in file order."""
        ...


class CheckpointWriter(Protocol):
    """A checkpoint being written; the specs were given up front, tensors arrive in any order."""

    def write(self, name: str, array: Array, rows: slice | None = None) -> None:
        """Write one tensor, or the rows ``rows`` of its first axis; every row is written exactly once.

        Raises:
            CheckpointError: no such name was announced, or shape or dtype differ, or it was written already.
            StorageError: the file system refused.
        """
        ...


class CheckpointStore(Protocol):
    """One file format."""

    @property
    def format(self) -> str:
        """Its short name: ``safetensors``, ``torch``, ``ckpt``."""
        ...

    def recognises(self, path: Path) -> bool:
        """Tell whether ``path`` (a file or folder) holds a checkpoint of this format."""
        ...

    def open(self, path: Path) -> AbstractContextManager[CheckpointReader]:
        """Open a checkpoint for reading.

        Raises:
            MissingFileError: a file or a shard is not there.
            CheckpointError: a header is truncated, garbage, or lies about its file.
        """
        ...

    def create(
        self, path: Path, specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None
    ) -> AbstractContextManager[CheckpointWriter]:
        """Write a checkpoint; leaving the block publishes it whole, an exception leaves ``path`` untouched.

        Raises:
            CheckpointError: a tensor that was announced never came.
            StorageError: the file system refused.
        """
        ...
