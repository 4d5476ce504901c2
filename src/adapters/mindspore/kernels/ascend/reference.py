"""The mathematics of each fused operator in plain operators, over the fused operator's own layouts.

They stand in where an operator is not there, and are what the self-test on a card compares with. Sums and
softmax are in float32; results are of the first input's precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from attrs import frozen
from mindspore import ops

from glm3.adapters.mindspore.kernels.ascend.rules import CAUSAL_MASK_SIZE
from glm3.adapters.mindspore.kernels.base import HeadLayout, Tensor

__all__ = ["REFERENCES", "OperatorSettings", "quantized_matmul_reference"]

_HIDDEN = -1e9  # exp() of it is 0 in float32


@frozen
class OperatorSettings:
    """What operators are made for: heads, the norms' epsilon, and over how many ranks their inputs are cut.

    ``data_parallel`` 0 leaves operators without a strategy.
    """

    layout: HeadLayout
    epsilon: float
    data_parallel: int = 0
    model_parallel: int = 1

    @property
    def scale(self) -> float:
        """Factor of the scores: one over the root of the head size."""
        return float(self.layout.head_dim**-0.5)


@ms.jit_class
class _FlashAttention:
    def __init__(self, settings: OperatorSettings) -> None:
        self.scale = settings.scale
        self.heads = settings.layout.num_heads
        self.kv_heads = settings.layout.num_kv_heads
        self.dim = settings.layout.head_dim
        self.group = settings.layout.group
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()
        self.softmax = ops.Softmax(-1)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, sparse_mode: int) -> Tensor:
        """Attend from ``(batch, seq, heads * dim)`` to keys, values ``(batch, length, kv_heads * dim)``."""
        batch, seq, _ = query.shape
        length = key.shape[1]
        kv, dim, group = self.kv_heads, self.dim, self.group
        queries = ops.cast(query, ms.float32).reshape(batch, seq, kv, group, dim).transpose(0, 2, 3, 1, 4)
        keys = ops.cast(key, ms.float32).reshape(batch, length, kv, dim).transpose(0, 2, 1, 3)
        values = ops.cast(value, ms.float32).reshape(batch, length, kv, dim).transpose(0, 2, 1, 3)
        scores = self.scores(queries.reshape(batch, kv, group * seq, dim), keys) * self.scale
        first = length - seq if sparse_mode == 3 else 0
        if length <= CAUSAL_MASK_SIZE:
            hidden = ops.cast(mask[first : first + seq, :length], ms.float32)
        else:
            hidden = ops.cast(
                ops.arange(length).reshape(1, length) > first + ops.arange(seq).reshape(seq, 1), ms.float32
            )
        scores = scores + ops.tile(hidden * _HIDDEN, (group, 1))
        attended = self.mix(self.softmax(scores), values).reshape(batch, kv, group, seq, dim)
        attended = attended.transpose(0, 3, 1, 2, 4).reshape(batch, seq, self.heads * dim)
        return ops.cast(attended, query.dtype)


@ms.jit_class
class _PagedAttention:
    def __init__(self, settings: OperatorSettings) -> None:
        self.scale = settings.scale
        self.group = settings.layout.group
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()
        self.softmax = ops.Softmax(-1)

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, tables: Tensor, lengths: Tensor
    ) -> Tensor:
        """Attend from each token ``(tokens, heads * dim)`` to the first places of its blocks."""
        tokens, width = query.shape
        _, size, kv, dim = keys.shape
        places = tables.shape[1] * size
        blocks = ops.maximum(tables, 0).reshape(-1)
        near = ops.cast(ops.gather(keys, blocks, 0), ms.float32).reshape(tokens, places, kv, dim)
        mixed = ops.cast(ops.gather(values, blocks, 0), ms.float32).reshape(tokens, places, kv, dim)
        queries = ops.cast(query, ms.float32).reshape(tokens, kv, self.group, dim)
        scores = self.scores(queries, near.transpose(0, 2, 1, 3)) * self.scale
        hidden = ops.cast(ops.arange(places).reshape(1, places) >= lengths.reshape(tokens, 1), ms.float32)
        scores = scores + (hidden * _HIDDEN).reshape(tokens, 1, 1, places)
        attended = self.mix(self.softmax(scores), mixed.transpose(0, 2, 1, 3))
        return ops.cast(attended.reshape(tokens, width), query.dtype)


@ms.jit_class
class _ReshapeAndCache:
    def __init__(self, _settings: OperatorSettings) -> None:
        self.update = ops.ScatterNdUpdate()

    def __call__(self, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> Tensor:
        """Write ``(tokens, kv_heads * dim)`` into the caches' slots in place; return what to depend on."""
        _, size, kv, dim = keys.shape
        places = ops.stack((slots // size, slots % size), -1)
        written = self.update(keys, places, key.reshape(-1, kv, dim))
        return ops.depend(key, (written, self.update(values, places, value.reshape(-1, kv, dim))))


@ms.jit_class
class _RmsNorm:
    def __init__(self, settings: OperatorSettings) -> None:
        self.epsilon = settings.epsilon

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        wide = ops.cast(x, ms.float32)
        factor = ops.rsqrt(ops.mean(ops.square(wide), -1, keep_dims=True) + self.epsilon)
        return ops.cast(wide * factor * ops.cast(weight, ms.float32), x.dtype)


@ms.jit_class
class _Rotary:
    def __init__(self, _settings: OperatorSettings) -> None:
        pass

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate pairs of neighbours of ``(batch, seq, heads, dim)``."""
        pairs = x.reshape(x.shape[0], x.shape[1], x.shape[2], -1, 2)
        swapped = ops.stack((-pairs[..., 1], pairs[..., 0]), -1).reshape(x.shape)
        return x * cos + swapped * sin


@ms.jit_class
class _Swiglu:
    def __init__(self, _settings: OperatorSettings) -> None:
        pass

    def __call__(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        gate = ops.cast(x[:, :half], ms.float32)
        return ops.cast(gate * ops.sigmoid(gate) * ops.cast(x[:, half:], ms.float32), x.dtype)


def quantized_matmul_reference(
    x: Tensor, weight: Tensor, scale: Tensor, offset: Tensor, group: int
) -> Tensor:
    """Return ``x @ ((weight + offset) * scale)`` for levels ``(in, out)``; ``group`` 0 is by channel."""
    levels = ops.cast(weight, ms.float32)
    scale, offset = ops.cast(scale, ms.float32), ops.cast(offset, ms.float32)
    if group:
        scale, offset = ops.repeat_interleave(scale, group, 0), ops.repeat_interleave(offset, group, 0)
    return ops.cast(ops.matmul(ops.cast(x, ms.float32), (levels + offset) * scale), x.dtype)


REFERENCES: dict[str, Callable[[OperatorSettings], Any]] = {
    "FlashAttentionScore": _FlashAttention,
    "PagedAttention": _PagedAttention,
    "ReshapeAndCache": _ReshapeAndCache,
    "RmsNorm": _RmsNorm,
    "RotaryPositionEmbedding": _Rotary,
    "Swiglu": _Swiglu,
}
"""What makes each operator's reference from its settings."""
