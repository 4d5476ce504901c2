"""The kernel set of fused Ascend operators: differentiable over whole sequences, paged over a cache.

Activations between blocks are float32, as MindFormers keeps them; norms compute in float32; everything else,
from the projections to the attention and the feed-forward, is in the set's half precision.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from attrs import evolve
from mindspore import ops
from mindspore.ops.functional import isconstant
from mindspore.ops.primitive import constexpr
from numpy.typing import NDArray

from glm3.adapters.mindspore.kernels.ascend.operators import make_operators
from glm3.adapters.mindspore.kernels.ascend.reference import OperatorSettings
from glm3.adapters.mindspore.kernels.ascend.rules import CAUSAL_MASK_SIZE, verify
from glm3.adapters.mindspore.kernels.base import Extension, HeadLayout, Tensor
from glm3.adapters.mindspore.kernels.stock import StockKernels
from glm3.domain.tensors import DType

__all__ = ["AscendKernels", "decode_plan", "prefill_plan"]

_LEFT_UP, _RIGHT_DOWN = 2, 3


@ms.jit_class
class AscendKernels(StockKernels):
    """Implement :class:`~glm3.adapters.mindspore.kernels.base.Kernels` with the operators in ``fused``.

    The others are computed by their references. Calls of those in ``checked``, by default the fused ones, are
    verified. Caches are pools of blocks ``(blocks, block_size,
    num_kv_heads, head_dim)``, and an extension names the blocks of its rows.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        fused: Collection[str],
        dtype: DType = DType.FLOAT16,
        checked: Collection[str] | None = None,
    ) -> None:
        super().__init__(settings.layout)
        operators = make_operators(settings, fused)
        self.flash_attention = operators["FlashAttentionScore"]
        self.paged_attention = operators["PagedAttention"]
        self.reshape_and_cache = operators["ReshapeAndCache"]
        self.norm = operators["RmsNorm"]
        self.rotary = operators["RotaryPositionEmbedding"]
        self.fused_swiglu = operators["Swiglu"]
        self.settings = settings
        self.made_with = (tuple(fused), dtype, checked)
        self.kv_size = settings.layout.kv_size
        self.dtype = getattr(ms, dtype.value)
        self.fused = tuple(fused)
        self.checked = tuple(fused if checked is None else checked)
        self.half = dtype is not DType.FLOAT32
        self.hidden = ms.Tensor.from_numpy(np.triu(np.ones((CAUSAL_MASK_SIZE,) * 2, np.uint8), 1))

    def with_layout(self, layout: HeadLayout) -> AscendKernels:
        return AscendKernels(evolve(self.settings, layout=layout), *self.made_with)

    def recompute(self) -> None:
        # Called through these classes they lose the scope by which a cell's recompute finds its operators.
        for operator in (self.flash_attention, self.norm, self.rotary, self.fused_swiglu):
            if hasattr(operator, "recompute"):  # a reference is made of operators that keep their scope
                operator.recompute()

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        return ops.cast(ops.gather(weight, ids, 0), ms.float32)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = self.matmul_transposed(ops.cast(x, self.dtype), ops.cast(weight, self.dtype))
        if bias is not None:
            y = y + ops.cast(bias, self.dtype)
        return y

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:  # noqa: ARG002  # made with it
        x, weight = ops.cast(x, ms.float32), ops.cast(weight, ms.float32)
        self._check("RmsNorm", (x.shape, weight.shape), (x.dtype, weight.dtype), ())
        return self.norm(x, weight)

    def swiglu(self, h: Tensor) -> Tensor:
        self._check("Swiglu", (h.shape,), (h.dtype,), ())
        return self.fused_swiglu(h)

    def attention(self, qkv: Tensor, cos: Tensor, sin: Tensor, batch: int, seq: int) -> Tensor:
        cos, sin = self.angles(cos, sin)
        query, key, value = self._rotated(qkv, cos, sin, batch, seq)
        return self._flash(query, key, value, _LEFT_UP).reshape(batch * seq, self.query_size)

    def prefix_attention(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, batch: int, seq: int, keys: Tensor, values: Tensor
    ) -> Tensor:
        cos, sin = self.angles(cos, sin)
        query, key, value = self._rotated(qkv, cos, sin, batch, seq)
        learned = ops.cast(ops.tile(keys.expand_dims(0), (batch, 1, 1)), self.dtype)
        key = ops.concat((learned, key), 1)
        learned = ops.cast(ops.tile(values.expand_dims(0), (batch, 1, 1)), self.dtype)
        value = ops.concat((learned, value), 1)
        return self._flash(query, key, value, _RIGHT_DOWN).reshape(batch * seq, self.query_size)

    def _check(self, operator: str, shapes: Any, dtypes: Any, settings: Any) -> None:
        """Verify a call, while a graph is compiled too; lengths still open then are not checked."""
        if operator in self.checked and isconstant(shapes):
            _verify(operator, shapes, dtypes, settings, self.half)

    def angles(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Spread ``(seq, rotary_dim / 2)`` over pairs and heads of ``(1, seq, 1, head_dim)``.

        The unrotated half of each head gets cosine 1 and sine 0, which leaves it as it is.
        """
        return self._spread_angles(cos, 1.0), self._spread_angles(sin, 0.0)

    def _spread_angles(self, table: Tensor, rest: float) -> Tensor:
        seq, pairs = table.shape
        rotated = ops.tile(table.reshape(seq, pairs, 1), (1, 1, 2)).reshape(seq, 2 * pairs)
        joined = ops.concat((rotated, ops.ones_like(rotated) * rest), 1)
        return ops.cast(joined, self.dtype).reshape(1, seq, 1, self.head_dim)

    def _rotated(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, batch: int, seq: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cut and rotate; return query, key and value ``(batch, seq, heads * dim)``."""
        query = qkv[:, : self.query_size].reshape(batch, seq, self.num_heads, self.head_dim)
        key = qkv[:, self.query_size : self.rotated_size]
        key = key.reshape(batch, seq, self.num_kv_heads, self.head_dim)
        value = qkv[:, self.rotated_size :].reshape(batch, seq, self.kv_size)
        for part in (query, key):
            shapes, dtypes = (part.shape, cos.shape, sin.shape), (part.dtype, cos.dtype, sin.dtype)
            self._check("RotaryPositionEmbedding", shapes, dtypes, ())
        query = self.rotary(query, cos, sin).reshape(batch, seq, self.query_size)
        key = self.rotary(key, cos, sin).reshape(batch, seq, self.kv_size)
        return query, key, value

    def _flash(self, query: Tensor, key: Tensor, value: Tensor, sparse_mode: int) -> Tensor:
        shapes = (query.shape, key.shape, value.shape, self.hidden.shape)
        dtypes = (query.dtype, key.dtype, value.dtype, self.hidden.dtype)
        self._check("FlashAttentionScore", shapes, dtypes, (self.num_heads, sparse_mode))
        return self.flash_attention(query, key, value, self.hidden, sparse_mode)

    def plan(self, extension: Extension, cos: NDArray[np.float32], sin: NDArray[np.float32]) -> Any:
        tables, size = extension.tables, extension.block_size
        positions = extension.positions
        angles = self.angles(ms.Tensor(cos[positions]), ms.Tensor(sin[positions]))
        owners = np.repeat(np.arange(len(tables)), extension.lengths)
        slots = [tables[o][p // size] * size + p % size for o, p in zip(owners, positions, strict=True)]
        spans = tuple(zip(extension.starts, extension.lengths, tables, strict=True))
        return ("spans", *angles, _indices(slots), spans, size)

    def cached_attention(self, qkv: Tensor, keys: Tensor, values: Tensor, plan: Any) -> Tensor:
        if plan[0] == "prefill":
            _, cos, sin, slots, batch, seq = plan
            query, key, value = self._rotated(qkv, cos, sin, batch, seq)
            query = ops.depend(query, self._store(key, value, keys, values, slots))
            return self._flash(query, key, value, _LEFT_UP).reshape(-1, self.query_size)
        query, key, value = self._rotated(qkv, plan[1], plan[2], 1, qkv.shape[0])
        query = ops.depend(query, self._store(key, value, keys, values, plan[3]))
        if plan[0] == "decode":
            return self._paged(query.reshape(-1, self.query_size), keys, values, plan[4], plan[5])
        return self._attend_spans(query, key, value, keys, values, plan[4], plan[5])

    def _store(self, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> Tensor:
        key, value = key.reshape(-1, self.kv_size), value.reshape(-1, self.kv_size)
        shapes = (key.shape, value.shape, keys.shape, values.shape, slots.shape)
        dtypes = (key.dtype, value.dtype, keys.dtype, values.dtype, slots.dtype)
        self._check("ReshapeAndCache", shapes, dtypes, ())
        return self.reshape_and_cache(key, value, keys, values, slots)

    def _paged(self, query: Tensor, keys: Tensor, values: Tensor, tables: Tensor, lengths: Tensor) -> Tensor:
        shapes = (query.shape, keys.shape, values.shape, tables.shape, lengths.shape)
        dtypes = (query.dtype, keys.dtype, values.dtype, tables.dtype, lengths.dtype)
        self._check("PagedAttention", shapes, dtypes, (self.num_heads, self.num_kv_heads))
        return self.paged_attention(query, keys, values, tables, lengths)

    def _attend_spans(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        keys: Tensor,
        values: Tensor,
        spans: Sequence[tuple[int, int, Sequence[int]]],
        size: int,
    ) -> Tensor:
        """Attend row by row: single tokens over the blocks, prompts over themselves, others over both."""
        if all(length == 1 for _, length, _ in spans):
            _, _, _, _, tables, lengths = decode_plan(None, None, None, spans)
            return self._paged(query.reshape(-1, self.query_size), keys, values, tables, lengths)
        attended, offset = [], 0
        for start, length, table in spans:
            new = slice(offset, offset + length)
            offset += length
            if start:
                near, mixed = (_contiguous(pool, table, start + length, size) for pool in (keys, values))
                attended.append(self._flash(query[:, new], near, mixed, _RIGHT_DOWN))
            else:
                attended.append(self._flash(query[:, new], key[:, new], value[:, new], _LEFT_UP))
        return ops.concat(attended, 1).reshape(-1, self.query_size)


def prefill_plan(cos: Tensor, sin: Tensor, slots: Tensor, batch: int, seq: int) -> tuple[Any, ...]:
    """Return the plan of whole prompts ``(batch, seq)``, padded on the right, for a compiled graph."""
    return ("prefill", cos, sin, slots, batch, seq)


def decode_plan(
    cos: Tensor | None,
    sin: Tensor | None,
    slots: Tensor | None,
    spans: Sequence[tuple[int, int, Sequence[int]]],
) -> tuple[Any, ...]:
    """Return the plan of one token for each of ``spans``, rows of ``(start, 1, blocks)``."""
    width = max(len(table) for _, _, table in spans)
    tables = [[*table, *[-1] * (width - len(table))] for _, _, table in spans]
    return ("decode", cos, sin, slots, _indices(tables), _indices([start + 1 for start, _, _ in spans]))


@constexpr  # type: ignore[untyped-decorator]
def _verify(
    operator: str,
    shapes: tuple[tuple[int, ...], ...],
    dtypes: tuple[object, ...],
    settings: tuple[int, ...],
    half: bool,
) -> bool:
    verify(operator, shapes, dtypes, *settings, half=half)
    return True


def _indices(values: Any) -> Tensor:
    return ms.Tensor(np.asarray(values, np.int32))


def _contiguous(pool: Tensor, table: Sequence[int], length: int, size: int) -> Tensor:
    """Gather the first places of a row's blocks: ``(1, length, kv_heads * dim)``."""
    blocks = ops.gather(pool, _indices(table[: -(-length // size)]), 0)
    return blocks.reshape(1, -1, pool.shape[2] * pool.shape[3])[:, :length]
