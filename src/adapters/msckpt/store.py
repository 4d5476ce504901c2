"""The checkpoint store for MindSpore's ``.ckpt``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from glm3.adapters.msckpt.reader import MindSporeCheckpointReader, open_file
from glm3.adapters.msckpt.writer import MindSporeCheckpointWriter, create_at, lay_out
from glm3.domain.atomic_write import staged_file
from glm3.domain.errors import CheckpointError, MissingFileError
from glm3.domain.tensors import TensorSpec

__all__ = ["MindSporeCheckpointStore"]

_SUFFIX = ".ckpt"


class MindSporeCheckpointStore:
    """Read and write ``x.ckpt``, or read a folder that holds exactly one.

    ``piece_bytes`` is where MindSpore cuts large tensors, 512 MiB: protobuf messages end at 2 GiB.
    """

    def __init__(self, piece_bytes: int = 512 << 20) -> None:
        self._piece_bytes = piece_bytes

    @property
    def format(self) -> str:
        return "ckpt"

    def recognises(self, path: Path) -> bool:
        if path.is_dir():
            return any(path.glob(f"*{_SUFFIX}"))
        return path.is_file() and path.suffix == _SUFFIX

    @contextmanager
    def open(self, path: Path) -> Iterator[MindSporeCheckpointReader]:
        with open_file(_only_file(path) if path.is_dir() else path) as reader:
            yield reader

    @contextmanager
    def create(
        self, path: Path, specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None
    ) -> Iterator[MindSporeCheckpointWriter]:
        layout = lay_out(specs, metadata or {}, self._piece_bytes)
        with (
            staged_file(path, layout.size) as file,
            create_at(file, path, specs, metadata or {}, layout) as writer,
        ):
            yield writer


def _only_file(folder: Path) -> Path:
    files = sorted(folder.glob(f"*{_SUFFIX}"))
    if not files:
        raise MissingFileError(f"no *{_SUFFIX} file in this folder", path=folder)
    if len(files) > 1:
        raise CheckpointError(
            f"{len(files)} *{_SUFFIX} files in one folder",
            path=folder,
            found=", ".join(file.name for file in files),
            hint="name the one to read",
        )
    return files[0]
