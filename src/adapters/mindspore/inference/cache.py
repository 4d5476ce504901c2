"""The KV cache: arrays of the host, which MindSpore's tensors and the native decoder both see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.adapters.mindspore.inference.structures import (
    CACHE_FORMATS,
    CacheShape,
    LayerCache,
    Span,
    address,
)
from glm3.adapters.mindspore.kernels.base import Extension, HeadLayout, Tensor
from glm3.domain.engine.paged_rows import PagedRows
from glm3.domain.model_config import ModelConfig

__all__ = ["BLOCK_SIZE", "LayerArrays", "MindSporeCache"]

BLOCK_SIZE = 128
"""Tokens of a block, a multiple of the 64 that attention reads at once.

Over 2,048 tokens with the heads of 6B attention takes as long as over one piece of memory where blocks lie in
order, 2 % longer where they lie in any; it took 3 to 8 % longer with blocks of 64.
"""

_DTYPES = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}


@frozen(eq=False)
class LayerArrays:
    """Keys and values ``(blocks, block_size, num_kv_heads, kv_channels)`` of one layer.

    Eight-bit ones have scales ``(blocks, block_size, num_kv_heads)``.
    """

    keys: NDArray[Any]
    values: NDArray[Any]
    key_scales: NDArray[np.float32] | None = None
    value_scales: NDArray[np.float32] | None = None

    @property
    def arrays(self) -> list[NDArray[Any]]:
        every = (self.keys, self.values, self.key_scales, self.value_scales)
        return [array for array in every if array is not None]


class MindSporeCache(PagedRows):
    """Per layer keys and values in one of the formats fp32, fp16 and int8, written in place.

    The first ``prefix`` places of every row are those of a learned prefix and count as no token's. With
    ``whole_rows`` a block is as long as a row may become.
    """

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        capacity: int,
        prefix: int = 0,
        format_: str = "fp32",
        pool_tokens: int | None = None,
        *,
        whole_rows: bool = False,
    ) -> None:
        block_size = prefix + capacity if whole_rows else BLOCK_SIZE
        super().__init__(rows, capacity, block_size, pool_tokens, prefix)
        layout = HeadLayout.of(config)
        shape = (self.blocks, self.block_size, layout.num_kv_heads, layout.head_dim)
        # Zero pages of the system: memory is taken as blocks are first written, not up front.
        dtype = _DTYPES[format_]
        scaled = shape[:3] if format_ == "int8" else None
        self.format = format_
        self.arrays = [
            LayerArrays(np.zeros(shape, dtype), np.zeros(shape, dtype), _scales(scaled), _scales(scaled))
            for _ in range(config.num_layers)
        ]
        self.native = (LayerCache * len(self.arrays))(
            *(
                LayerCache(*(address(a) for a in (x.keys, x.values, x.key_scales, x.value_scales)))
                for x in self.arrays
            )
        )
        self.native_shape = CacheShape(CACHE_FORMATS[format_], *shape)
        self._table_address, self._table_stride = self.tables.ctypes.data, self.tables.strides[0]
        self._layers: list[tuple[Tensor, Tensor]] = []

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The arrays as MindSpore tensors over the same memory."""
        if not self._layers:
            share = ms.Tensor.from_numpy
            self._layers.extend((share(layer.keys), share(layer.values)) for layer in self.arrays)
        return self._layers

    def write_prefix(self, learned: NDArray[np.float32]) -> None:
        """Put ``(prefix, num_layers, 2, num_kv_heads, kv_channels)``, keys first, in front of every row."""
        slots = self.prefix_slots
        for made, layer in zip(np.moveaxis(learned, 0, 2), self.arrays, strict=True):
            _write(made[0], slots, layer.keys, layer.key_scales)
            _write(made[1], slots, layer.values, layer.value_scales)

    def copy_block(self, source: int, target: int) -> None:
        for layer in self.arrays:
            for array in layer.arrays:
                array[target] = array[source]

    def extension(self, rows: Sequence[int], lengths: Sequence[int]) -> Extension:
        """Make room for ``lengths[i]`` tokens in ``rows[i]`` and say where they go.

        Raises:
            BackendError: the pool has too few free blocks.
        """
        starts = [self.prefix + self.length(row) for row in rows]
        self.grow(rows, lengths)
        return Extension(starts, lengths, [self.table(row) for row in rows], self.block_size)

    def fill_span(self, span: Span, row: int, offset: int, start: int, length: int) -> None:
        """Describe tokens of a pass that go to a row's places from ``start`` on."""
        span.blocks = self._table_address + row * self._table_stride
        span.block_count = -(-(start + length) // self.block_size)
        span.offset, span.start, span.length = offset, start, length


def _write(
    heads: NDArray[np.float32], slots: list[int], numbers: NDArray[Any], scales: NDArray[np.float32] | None
) -> None:
    """Store ``(places, num_kv_heads, kv_channels)`` at ``slots``, rounded as the native decoder rounds."""
    flat = numbers.reshape(-1, *numbers.shape[2:])
    if scales is None:
        flat[slots] = heads
        return
    largest = np.abs(heads).max(-1)
    scales.reshape(-1, scales.shape[2])[slots] = largest / np.float32(127)
    factors = np.where(largest > 1e-30, 127 / np.maximum(largest, 1e-30), 0)
    flat[slots] = np.rint(heads * factors[..., None])


def _scales(shape: tuple[int, ...] | None) -> NDArray[np.float32] | None:
    return None if shape is None else np.zeros(shape, np.float32)
