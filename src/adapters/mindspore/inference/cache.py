"""The KV cache: arrays of the host, which MindSpore's tensors and the native decoder both see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from glm3.adapters.mindspore.inference.structures import CACHE_FORMATS, CacheShape, LayerCache, address
from glm3.adapters.mindspore.kernels.base import HeadLayout, Tensor
from glm3.domain.model_config import ModelConfig
from glm3.domain.model_inputs import check_row_length

__all__ = ["LayerArrays", "MindSporeCache"]

_DTYPES = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}


@frozen(eq=False)
class LayerArrays:
    """Keys and values ``(rows, places, num_kv_heads, kv_channels)`` of one layer.

    Eight-bit ones have scales ``(rows, places, num_kv_heads)``.
    """

    keys: NDArray[Any]
    values: NDArray[Any]
    key_scales: NDArray[np.float32] | None = None
    value_scales: NDArray[np.float32] | None = None

    @property
    def arrays(self) -> list[NDArray[Any]]:
        every = (self.keys, self.values, self.key_scales, self.value_scales)
        return [array for array in every if array is not None]


@frozen(eq=False)
class MindSporeCache:
    """Per layer keys and values in one of the formats fp32, fp16 and int8, written in place.

    The first ``prefix`` places of every row are those of a learned prefix and count as no token's.
    """

    format: str
    arrays: Sequence[LayerArrays]
    capacity: int
    lengths: list[int]
    prefix: int
    native: Any
    native_shape: CacheShape
    _tensors: list[tuple[Tensor, Tensor]] = field(factory=list)

    @classmethod
    def allocate(
        cls, config: ModelConfig, rows: int, capacity: int, prefix: int = 0, format_: str = "fp32"
    ) -> MindSporeCache:
        layout = HeadLayout.of(config)
        shape = (rows, prefix + capacity, layout.num_kv_heads, layout.head_dim)
        # Zero pages of the system: memory is taken as positions are written, not up front.
        dtype = _DTYPES[format_]
        scaled = shape[:3] if format_ == "int8" else None
        layers = [
            LayerArrays(np.zeros(shape, dtype), np.zeros(shape, dtype), _scales(scaled), _scales(scaled))
            for _ in range(config.num_layers)
        ]
        native = (LayerCache * len(layers))(
            *(
                LayerCache(*(address(a) for a in (x.keys, x.values, x.key_scales, x.value_scales)))
                for x in layers
            )
        )
        native_shape = CacheShape(CACHE_FORMATS[format_], *shape)
        return cls(format_, layers, capacity, [0] * rows, prefix, native, native_shape)

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The arrays as MindSpore tensors over the same memory."""
        if not self._tensors:
            share = ms.Tensor.from_numpy
            self._tensors.extend((share(layer.keys), share(layer.values)) for layer in self.arrays)
        return self._tensors

    def write_prefix(self, learned: NDArray[np.float32]) -> None:
        """Put ``(prefix, num_layers, 2, num_kv_heads, kv_channels)``, keys first, in front of every row."""
        for made, layer in zip(np.moveaxis(learned, 0, 2), self.arrays, strict=True):
            _write(made[0], layer.keys[:, : self.prefix], layer.key_scales)
            _write(made[1], layer.values[:, : self.prefix], layer.value_scales)

    @property
    def rows(self) -> int:
        return len(self.lengths)

    def length(self, row: int) -> int:
        return self.lengths[row]

    def truncate(self, row: int, length: int) -> None:
        check_row_length(self.lengths[row], length)
        self.lengths[row] = length

    def copy_row(self, source: int, target: int) -> None:
        held = slice(self.prefix, self.prefix + self.lengths[source])
        if source != target and self.lengths[source]:
            for layer in self.arrays:
                for array in layer.arrays:
                    array[target, held] = array[source, held]
        self.lengths[target] = self.lengths[source]


def _write(heads: NDArray[np.float32], numbers: NDArray[Any], scales: NDArray[np.float32] | None) -> None:
    """Store ``(places, num_kv_heads, kv_channels)`` in all rows, rounded as the native decoder rounds."""
    if scales is None:
        numbers[:] = heads
        return
    largest = np.abs(heads).max(-1)
    scales[:, : len(heads)] = largest / np.float32(127)
    factors = np.where(largest > 1e-30, 127 / np.maximum(largest, 1e-30), 0)
    numbers[:] = np.rint(heads * factors[..., None])


def _scales(shape: tuple[int, ...] | None) -> NDArray[np.float32] | None:
    return None if shape is None else np.zeros(shape, np.float32)
