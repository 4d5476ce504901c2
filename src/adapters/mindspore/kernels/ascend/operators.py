"""MindSpore's fused Ascend operators, made for one network and cut for one plan of ranks.

They can be made, inferred, exported and compiled on any machine; only a card computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any

import mindspore as ms

from glm3.adapters.mindspore.kernels.ascend.reference import REFERENCES, OperatorSettings
from glm3.adapters.mindspore.kernels.ascend.versions import OPERATORS
from glm3.adapters.mindspore.kernels.base import Tensor

__all__ = ["FUSED", "QuantizedMatmul", "make_operators", "present_operators"]

_MODULE = "mindspore.ops.auto_generate.gen_ops_prim"
_EVERYTHING = 2147483647  # tokens before and after, where the sparse mode alone decides
_INTERLEAVED = 1
_ATTENDED = 3  # place of the result among the outputs of flash attention


def present_operators() -> frozenset[str]:
    """Return the operators that MindSpore's package has."""
    module = import_module(_MODULE)
    return frozenset(name for name in OPERATORS if hasattr(module, name))


def make_operators(settings: OperatorSettings, fused: Collection[str]) -> dict[str, Any]:
    """Make the operators of a network: fused where named in ``fused``, their references otherwise."""
    return {
        name: (FUSED[name] if name in fused else reference)(settings)
        for name, reference in REFERENCES.items()
    }


def _primitive(name: str) -> Any:
    return getattr(import_module(_MODULE), name)


@ms.jit_class
class _FlashAttention:
    def __init__(self, settings: OperatorSettings) -> None:
        self.left_up = self._make(settings, 2)
        self.right_down = self._make(settings, 3)

    def _make(self, settings: OperatorSettings, sparse_mode: int) -> Any:
        heads = settings.layout.num_heads
        operator = _primitive("FlashAttentionScore")(
            head_num=heads,
            keep_prob=1.0,
            scale_value=settings.scale,
            pre_tokens=_EVERYTHING,
            next_tokens=_EVERYTHING,
            inner_precise=0,
            input_layout="BSH",
            sparse_mode=sparse_mode,
        )
        if settings.data_parallel:
            cut = (settings.data_parallel, 1, settings.model_parallel)
            operator.shard((cut, cut, cut, (1, 1)))
        return operator

    def recompute(self) -> None:
        self.left_up.recompute()
        self.right_down.recompute()

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, sparse_mode: int) -> Tensor:
        operator = self.right_down if sparse_mode == 3 else self.left_up
        return operator(query, key, value, None, None, None, mask, None)[_ATTENDED]


@ms.jit_class
class _PagedAttention:
    def __init__(self, settings: OperatorSettings) -> None:
        layout = settings.layout
        self.operator = _primitive("PagedAttention")(
            layout.num_heads, settings.scale, layout.num_kv_heads, "DEFAULT"
        )

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, tables: Tensor, lengths: Tensor
    ) -> Tensor:
        return self.operator(query, keys, values, tables, lengths, None, None, None, None)


@ms.jit_class
class _ReshapeAndCache:
    def __init__(self, _settings: OperatorSettings) -> None:
        self.operator = _primitive("ReshapeAndCache")()

    def __call__(self, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> Tensor:
        return self.operator(key, value, keys, values, slots)


@ms.jit_class
class _RmsNorm:
    def __init__(self, settings: OperatorSettings) -> None:
        self.operator = _primitive("RmsNorm")(settings.epsilon)
        if settings.data_parallel:
            self.operator.shard(((settings.data_parallel, 1), (1,)))

    def recompute(self) -> None:
        self.operator.recompute()

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.operator(x, weight)[0]


@ms.jit_class
class _Rotary:
    def __init__(self, settings: OperatorSettings) -> None:
        self.operator = _primitive("RotaryPositionEmbedding")()
        if settings.data_parallel:
            whole = (1, 1, 1, 1)
            cut = (settings.data_parallel, 1, settings.model_parallel, 1)
            self.operator.shard((cut, whole, whole))

    def recompute(self) -> None:
        self.operator.recompute()

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return self.operator(x, cos, sin, _INTERLEAVED)


@ms.jit_class
class _Swiglu:
    def __init__(self, settings: OperatorSettings) -> None:
        self.operator = _primitive("Swiglu")()
        if settings.data_parallel:
            self.operator.shard(((settings.data_parallel, 1),))

    def recompute(self) -> None:
        self.operator.recompute()

    def __call__(self, x: Tensor) -> Tensor:
        return self.operator(x, -1)


@ms.jit_class
class QuantizedMatmul:
    """Multiply activations by int8 or packed int4 levels ``(in, out)``; ``group`` 0 is by channel."""

    def __init__(self, group: int) -> None:
        self.operator = _primitive("WeightQuantBatchMatmul")(False, False, group)

    def __call__(self, x: Tensor, weight: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        return self.operator(x, weight, scale, offset, None, None, None)


FUSED: dict[str, Callable[[OperatorSettings], Any]] = {
    "FlashAttentionScore": _FlashAttention,
    "PagedAttention": _PagedAttention,
    "ReshapeAndCache": _ReshapeAndCache,
    "RmsNorm": _RmsNorm,
    "RotaryPositionEmbedding": _Rotary,
    "Swiglu": _Swiglu,
}
"""What makes each fused operator from its settings."""
