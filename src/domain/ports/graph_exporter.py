"""Port: write a model's prefill and decode as graphs for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from attrs import frozen

from glm3.domain.errors import ConfigError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.quantization import QuantScheme
from glm3.domain.tensors import DType

__all__ = ["ExportedGraph", "GraphExporter", "GraphOptions"]


@frozen(kw_only=True)
class GraphOptions:
    """How graphs are made; lengths that are None stay open until the graph runs.

    ``kernels`` is ``ascend``, fused operators, or ``stock``, plain ones. Sizes of the cache that are None are
    the configuration's. ``quant`` names the :class:`~glm3.domain.quantization.QuantScheme` of the blocks'
    matrices.

    Raises:
        ConfigError: there is no such kernel set or scheme, or a size is not positive.
    """

    kernels: str = "ascend"
    dtype: DType = DType.FLOAT16
    batch_size: int | None = None
    seq_length: int | None = None
    num_blocks: int | None = None
    block_size: int | None = None
    quant: str | None = None

    def __attrs_post_init__(self) -> None:
        _ = self.scheme
        if self.kernels not in ("ascend", "stock"):
            raise ConfigError("no such set", field="kernels", expected="ascend, stock", found=self.kernels)
        for name in ("batch_size", "seq_length", "num_blocks", "block_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError("not a size", field=name, expected="1 or more", found=value)

    @property
    def scheme(self) -> QuantScheme | None:
        return None if self.quant is None else QuantScheme.parse(self.quant)


@frozen(kw_only=True)
class ExportedGraph:
    """One file that was written: its inputs with their shapes, and how many of each operator it holds."""

    path: Path
    inputs: tuple[tuple[str, tuple[int | None, ...]], ...]
    operators: dict[str, int]


class GraphExporter(Protocol):
    """One graph format."""

    def write(
        self, folder: Path, config: ModelConfig, weights: CheckpointReader, options: GraphOptions
    ) -> tuple[ExportedGraph, ...]:
        """Write prefill and decode into an empty folder.

        Raises:
            InvalidInputError: a fused operator does not take the network; it names the setting to change.
            ParameterMismatchError: the weights do not fit the configuration.
            StorageError: the file system refused.
        """
        ...
