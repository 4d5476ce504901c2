"""Port: write a model for other programs, network, weights and vocabulary in one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from attrs import frozen

from glm3.domain.model_config import ModelConfig
from glm3.domain.tensors import Array, TensorSpec
from glm3.domain.vocabulary import Piece

__all__ = ["ExportableModel", "ModelExporter"]


@frozen(kw_only=True)
class ExportableModel:
    """What there is to write.

    ``tensors`` bear their Hugging Face names; ``read`` returns the rows of one, as
    :class:`~glm3.domain.ports.checkpoint_store.CheckpointReader` does.
    """

    name: str
    config: ModelConfig
    pieces: Sequence[Piece]
    tensors: Sequence[TensorSpec]
    read: Callable[[TensorSpec, slice | None], Array]


class ModelExporter(Protocol):
    """One file format of other programs."""

    @property
    def suffix(self) -> str:
        """What the names of its files end in."""
        ...

    @property
    def encodings(self) -> Sequence[str]:
        """How weights can be stored, the default first."""
        ...

    def stored(self, spec: TensorSpec, encoding: str) -> tuple[str, int]:
        """Return the encoding that a tensor gets when ``encoding`` was asked for, and its bytes."""
        ...

    def write(
        self, path: Path, model: ExportableModel, encoding: str, done: Callable[[str, int], None]
    ) -> None:
        """Write ``path`` and sync it; ``done`` is told the name and the source's bytes after every part.

        Raises:
            ConfigError: the format cannot say what the network is.
            InvalidInputError: a weight is not finite, or too large for its encoding.
            StorageError: the file system refused.
        """
        ...
