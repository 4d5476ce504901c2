"""Run fused operators and their references on the same inputs, at the published network's widths."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any

import mindspore as ms
import numpy as np
from attrs import evolve, frozen
from mindspore import Parameter, ops

from glm3.adapters.mindspore.kernels.ascend.rules import CAUSAL_MASK_SIZE
from glm3.adapters.mindspore.kernels.base import HeadLayout, Tensor
from glm3.adapters.mindspore.runtime import forget_gradients
from glm3.domain.ascend_self_test import OperatorOutcome
from glm3.domain.errors import Glm3Error

__all__ = ["Sizes", "compare_operators"]

ALLOWED = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-5}
"""Largest relative errors that rounding explains: about four units in the last place of sums of products."""

_REPEATS = 5

Results = tuple[Tensor, ...]
Case = tuple[str, str, Callable[[Any], Results]]


@frozen
class Sizes:
    """What the cases are made of; the defaults are ChatGLM3-6B's, with few tokens."""

    layout: HeadLayout = HeadLayout(32, 2, 128)
    batch: int = 2
    seq: int = 256
    ffn: int = 13696
    hidden: int = 4096
    block_size: int = 128


def compare_operators(
    fused: Mapping[str, Any], references: Mapping[str, Any], sizes: Sizes, dtype: str = "float16"
) -> Iterator[OperatorOutcome]:
    """Compare every operator of ``fused``, forward and, where a network is trained through it, backward."""
    for operator, case, call in _cases(sizes, getattr(ms, dtype)):
        if operator not in fused:
            continue
        outcome = OperatorOutcome(operator=operator, case=case, dtype=dtype, allowed=ALLOWED[dtype])
        try:
            expected, stock_ms = _timed(partial(call, references[operator]))
            found, fused_ms = _timed(partial(call, fused[operator]))
        except (RuntimeError, TypeError, ValueError, Glm3Error) as failure:
            forget_gradients()
            yield evolve(outcome, failure=str(failure).strip().splitlines()[0])
            continue
        error = max(_difference(a, b) for a, b in zip(found, expected, strict=True))
        yield evolve(outcome, error=error, fused_ms=fused_ms, stock_ms=stock_ms)


def _cases(sizes: Sizes, dtype: Any) -> Iterator[Case]:
    layout, tokens = sizes.layout, sizes.batch * sizes.seq
    draw = _Draw(dtype)
    mask = ms.Tensor(np.triu(np.ones((CAUSAL_MASK_SIZE,) * 2, np.uint8), 1))
    query = draw(sizes.batch, sizes.seq, layout.query_size)
    key, value = draw(sizes.batch, sizes.seq, layout.kv_size), draw(sizes.batch, sizes.seq, layout.kv_size)
    late = query[:, sizes.seq // 2 :]
    yield from _both(
        "FlashAttentionScore", "left-up", lambda of: lambda q, k, v: of(q, k, v, mask, 2), query, key, value
    )
    yield (
        "FlashAttentionScore",
        "right-down",
        lambda of: (of(late, key, value, mask, 3),),
    )
    norm, weight = draw.wide(tokens, sizes.hidden), draw.wide(sizes.hidden)
    yield from _both("RmsNorm", "float32", lambda of: of, norm, weight)
    heads = draw(sizes.batch, sizes.seq, layout.num_heads, layout.head_dim)
    cos, sin = draw(1, sizes.seq, 1, layout.head_dim), draw(1, sizes.seq, 1, layout.head_dim)
    yield from _both("RotaryPositionEmbedding", "pairs", lambda of: lambda x: of(x, cos, sin), heads)
    yield from _both("Swiglu", "halves", lambda of: of, draw(tokens, 2 * sizes.ffn))
    blocks = sizes.batch * -(-sizes.seq // sizes.block_size) + 1
    pool = (blocks, sizes.block_size, layout.num_kv_heads, layout.head_dim)
    slots = ms.Tensor(np.random.default_rng(1).permutation(pool[0] * pool[1])[:tokens].astype(np.int32))
    rows = (draw(tokens, layout.kv_size), draw(tokens, layout.kv_size))

    def write(of: Any) -> Results:
        pools = [Parameter(ms.Tensor(np.zeros(pool, np.float32), dtype), name=name) for name in ("k", "v")]
        done = of(*rows, *pools, slots)
        return tuple(ops.depend(each, done) for each in pools)

    yield "ReshapeAndCache", "any order", write
    keys, values = draw(*pool), draw(*pool)
    width = (blocks - 1) // sizes.batch
    tables = ms.Tensor(np.arange(blocks - 1, 0, -1).reshape(sizes.batch, width).astype(np.int32))
    lengths = ms.Tensor(np.array([sizes.seq - i * 3 for i in range(sizes.batch)], np.int32))
    single = draw(sizes.batch, layout.query_size)
    yield "PagedAttention", "any order", lambda of: (of(single, keys, values, tables, lengths),)


def _both(operator: str, case: str, bind: Callable[[Any], Any], *inputs: Tensor) -> Iterator[Case]:
    """Yield the forward case, and the gradients of a weighted sum by every input."""
    yield operator, case, lambda of: (bind(of)(*inputs),)

    def gradients(of: Any) -> Results:
        call = bind(of)

        def total(*given: Tensor) -> Tensor:
            result = ops.cast(call(*given), ms.float32)
            weights = ops.cast(ops.arange(result.shape[-1]) % 7 - 3, ms.float32)
            return (result * weights).sum()

        found = ms.grad(total, tuple(range(len(inputs))))(*inputs)
        return found if isinstance(found, tuple) else (found,)

    yield operator, f"{case}, gradient", gradients


class _Draw:
    """Draw numbers of a network's size, the same in every run."""

    def __init__(self, dtype: Any) -> None:
        self._dtype = dtype
        self._generator = np.random.default_rng(0)

    def __call__(self, *shape: int) -> Tensor:
        return ops.cast(self.wide(*shape), self._dtype)

    def wide(self, *shape: int) -> Tensor:
        return ms.Tensor(self._generator.standard_normal(shape, np.float32))


def _timed(call: Callable[[], Results]) -> tuple[list[Any], float]:
    """Return the results as float32 and the median time; the first call compiles and is not timed."""
    arrays = [ops.cast(result, ms.float32).asnumpy() for result in call()]
    times = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        for result in call():
            result.asnumpy()  # waits for the device
        times.append(1000 * (time.perf_counter() - begun))
    return arrays, median(times)


def _difference(found: Any, expected: Any) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
