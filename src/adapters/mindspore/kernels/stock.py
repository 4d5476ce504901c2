"""The kernel set of plain MindSpore operators: differentiable, on every device, the reference for the others.

Broadcasting is avoided where arrays are large: on the CPU MindSpore's broadcasts take 20 to 50 times as
long as the same operation on equal shapes.
"""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from attrs import frozen
from mindspore import ops
from numpy.typing import NDArray

from glm3.adapters.mindspore.kernels.adamw import StockAdamW
from glm3.adapters.mindspore.kernels.base import Extension, HeadLayout, Tensor
from glm3.adapters.mindspore.kernels.dropout import StockDropout

__all__ = ["StockKernels", "widen"]

_MASKED = -1e9  # exp() of it is 0 in float32
_QUERY_BLOCK = 128  # queries scored at once over the cache: bounds the memory of scores and mask


@frozen
class _Span:
    """A run of packed tokens ``[offset, offset + length)`` that continues a cache row at ``start``.

    The row is one block of the pool.
    """

    block: int
    offset: int
    start: int
    length: int
    mask: Tensor | None

    @property
    def end(self) -> int:
        return self.start + self.length


@frozen
class _Plan:
    cos: Tensor
    sin: Tensor
    spans: tuple[_Span, ...]


@ms.jit_class
class StockKernels:
    """Implement :class:`~glm3.adapters.mindspore.kernels.base.Kernels` in float32.

    It attends over a cache whose blocks are as long as rows may become.
    """

    def __init__(self, layout: HeadLayout) -> None:
        self.layout = layout
        self.num_heads = layout.num_heads
        self.num_kv_heads = layout.num_kv_heads
        self.head_dim = layout.head_dim
        self.group = layout.group
        self.query_size = layout.query_size
        self.rotated_size = layout.query_size + layout.kv_size
        self.scale = layout.head_dim**-0.5
        self.matmul = ops.MatMul()
        self.matmul_transposed = ops.MatMul(transpose_b=True)
        self.batch_matmul = ops.BatchMatMul()
        self.batch_matmul_transposed = ops.BatchMatMul(transpose_b=True)
        self.softmax = ops.Softmax(-1)
        self.swap = ms.Tensor(_pair_swap(layout.head_dim))
        self.adamw: Callable[..., Tensor] = StockAdamW()
        self.dropout: Callable[..., Tensor] = StockDropout()

    def with_layout(self, layout: HeadLayout) -> StockKernels:
        return StockKernels(layout)

    def recompute(self) -> None:
        """Leave it to the cell, which reaches all of these operators."""

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        if weight.dtype == ms.bfloat16:  # no CPU operator gathers it: move the bits, widen the rows
            return ops.cast(ops.gather(weight.view(ms.uint16), ids, 0).view(ms.bfloat16), ms.float32)
        return widen(ops.gather(weight, ids, 0))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = self.matmul_transposed(x, widen(weight))
        if bias is not None:
            y = ops.bias_add(y, widen(bias))
        return y

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        factor = ops.rsqrt(ops.mean(ops.square(x), -1, keep_dims=True) + epsilon)
        weight = widen(weight)
        if x.shape[0] > 1:
            factor = ops.tile(factor, (1, x.shape[1]))
            weight = ops.tile(weight, (x.shape[0], 1))
        return x * factor * weight

    def swiglu(self, h: Tensor) -> Tensor:
        gate, up = ops.split(h, h.shape[1] // 2, 1)
        return ops.silu(gate) * up

    def attention(self, qkv: Tensor, cos: Tensor, sin: Tensor, batch: int, seq: int) -> Tensor:
        return self._attend_causally(qkv, cos, sin, batch, seq, None)

    def prefix_attention(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, batch: int, seq: int, keys: Tensor, values: Tensor
    ) -> Tensor:
        return self._attend_causally(qkv, cos, sin, batch, seq, (keys, values))

    def _attend_causally(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        batch: int,
        seq: int,
        prefix: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        heads, kv_heads, dim = self.num_heads, self.num_kv_heads, self.head_dim
        rotated = self._rotate(
            qkv[:, : self.rotated_size],
            self._expand(cos, 1.0, batch, seq),
            self._expand(sin, 0.0, batch, seq),
        )
        query = rotated[:, : self.query_size] * self.scale
        query = query.reshape(batch, seq, heads, dim).transpose(0, 2, 1, 3)
        key = rotated[:, self.query_size :].reshape(batch, seq, kv_heads, dim).transpose(0, 2, 1, 3)
        value = qkv[:, self.rotated_size :].reshape(batch, seq, kv_heads, dim).transpose(0, 2, 1, 3)
        query = query.reshape(batch * kv_heads, self.group * seq, dim)
        key = key.reshape(batch * kv_heads, seq, dim)
        value = value.reshape(batch * kv_heads, seq, dim)
        order = ops.arange(seq)
        future = ops.cast(order.reshape(1, seq) > order.reshape(seq, 1), ms.float32) * _MASKED
        total = seq
        if prefix is not None:
            key = ops.concat((self._repeat_prefix(prefix[0], batch), key), 1)
            value = ops.concat((self._repeat_prefix(prefix[1], batch), value), 1)
            total = seq + prefix[0].shape[0]
            future = ops.concat((ops.zeros((seq, total - seq), ms.float32), future), 1)
        mask = ops.tile(future, (batch * heads, 1)).reshape(batch * kv_heads, self.group * seq, total)
        weights = self.softmax(self.batch_matmul_transposed(query, key) + mask)
        attended = self.batch_matmul(weights, value).reshape(batch, heads, seq, dim)
        return attended.transpose(0, 2, 1, 3).reshape(batch * seq, self.query_size)

    def _repeat_prefix(self, x: Tensor, batch: int) -> Tensor:
        """Repeat ``(length, kv_heads * dim)`` for every sequence: ``(batch * kv_heads, length, dim)``."""
        per_head = x.reshape(-1, self.num_kv_heads, self.head_dim).transpose(1, 0, 2)
        return ops.tile(per_head, (batch, 1, 1))

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        counted = ops.cast(labels != -100, ms.float32)
        log_probabilities = ops.log_softmax(widen(logits), -1)
        picked = ops.gather_elements(log_probabilities, 1, ops.maximum(labels, 0).reshape(-1, 1)).reshape(-1)
        return -(picked * counted).sum() / (counted.sum() + 1e-8)

    def sum_of_squares(self, x: Tensor) -> Tensor:
        return ops.square(x).sum(-1).sum()  # row by row: one sum over millions loses digits

    def plan(self, extension: Extension, cos: NDArray[np.float32], sin: NDArray[np.float32]) -> _Plan:
        positions = extension.positions
        return _Plan(
            ms.Tensor.from_numpy(self._spread(cos[positions], 1.0)),
            ms.Tensor.from_numpy(self._spread(sin[positions], 0.0)),
            tuple(self._spans(extension)),
        )

    def cached_attention(self, qkv: Tensor, keys: Tensor, values: Tensor, plan: _Plan) -> Tensor:
        rotated = self._rotate(qkv[:, : self.rotated_size], plan.cos, plan.sin)
        query = rotated[:, : self.query_size]
        key = rotated[:, self.query_size :].reshape(-1, self.num_kv_heads, self.head_dim)
        value = qkv[:, self.rotated_size :].reshape(-1, self.num_kv_heads, self.head_dim)
        if len(plan.spans) == 1:
            return self._attend(query, key, value, keys, values, plan.spans[0])
        attended = []
        for span in plan.spans:
            new = slice(span.offset, span.offset + span.length)
            attended.append(self._attend(query[new], key[new], value[new], keys, values, span))
        return ops.concat(attended)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, span: _Span
    ) -> Tensor:
        kv_heads, group, dim, length = self.num_kv_heads, self.group, self.head_dim, span.length
        keys[span.block, span.start : span.end] = key
        values[span.block, span.start : span.end] = value
        keys, values = keys[span.block, : span.end], values[span.block, : span.end]
        if length > 1:
            query = query.reshape(length, kv_heads, group, dim).transpose(1, 2, 0, 3)
        scores = self.batch_matmul_transposed(
            query.reshape(kv_heads, group * length, dim), keys.transpose(1, 0, 2)
        )
        if span.mask is not None:
            scores = scores + span.mask
        attended = self.batch_matmul(self.softmax(scores), values.transpose(1, 0, 2))
        if length > 1:
            attended = attended.reshape(self.num_heads, length, dim).transpose(1, 0, 2)
        return attended.reshape(length, self.query_size)

    def _spans(self, extension: Extension) -> list[_Span]:
        spans = []
        offset = 0
        rows = zip(extension.tables, extension.starts, extension.lengths, strict=True)
        for (block,), start, length in rows:  # one block a row: slices beat gathering by a third
            for done in range(0, length, _QUERY_BLOCK):
                queries = min(_QUERY_BLOCK, length - done)
                mask = self._block_mask(start + done, queries)
                spans.append(_Span(block, offset + done, start + done, queries, mask))
            offset += length
        return spans

    def _block_mask(self, start: int, length: int) -> Tensor | None:
        if length == 1:
            return None
        end = start + length
        future = np.arange(end) > np.arange(start, end)[:, None]
        mask = np.where(future, np.float32(_MASKED), np.float32(0))
        return ms.Tensor.from_numpy(np.tile(mask, (self.group, 1))[None].repeat(self.num_kv_heads, axis=0))

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate the leading heads ``(tokens, heads * dim)`` by ``cos`` and ``sin`` of the same shape."""
        swapped = self.matmul(x.reshape(-1, self.head_dim), self.swap).reshape(x.shape)
        return x * cos + swapped * sin

    def _spread(self, table: NDArray[np.float32], rest: float) -> NDArray[np.float32]:
        """Do what :meth:`_expand` does once for all layers, with the scale of the scores on the queries."""
        row = np.full((len(table), self.head_dim), rest, np.float32)
        row[:, : 2 * table.shape[1]] = table.repeat(2, axis=1)
        return np.concatenate([np.tile(self.scale * row, self.num_heads), np.tile(row, self.num_kv_heads)], 1)

    def _expand(self, table: Tensor, rest: float, batch: int, seq: int) -> Tensor:
        """Repeat ``(seq, rotary_dim / 2)`` per pair, sequence and head; unrotated channels get ``rest``."""
        pairs = table.reshape(seq, -1, 1)
        rotated = ops.tile(pairs, (1, 1, 2)).reshape(seq, -1)
        row = ops.concat(
            (rotated, ops.full((seq, self.head_dim - rotated.shape[1]), rest, dtype=ms.float32)), 1
        )
        return ops.tile(row, (batch, self.num_heads + self.num_kv_heads))


def _pair_swap(dim: int) -> NDArray[np.float32]:
    """Return the matrix that maps (even, odd) to (-odd, even) in each rotated pair and the rest to 0."""
    matrix = np.zeros((dim, dim), np.float32)
    even = np.arange(0, dim // 2, 2)
    matrix[even + 1, even] = -1
    matrix[even, even + 1] = 1
    return matrix


def widen(tensor: Tensor) -> Tensor:
    """Widen stored numbers: MindSpore's CPU operators lack bfloat16 and are slow in float16."""
    return tensor if tensor.dtype == ms.float32 else ops.cast(tensor, ms.float32)
