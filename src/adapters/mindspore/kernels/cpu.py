"""The kernel set of fused C++ operators for the CPU, differentiable eagerly and in compiled graphs.

Matrix products stay MindSpore's (oneDNN). What runs over a KV cache is inherited from the stock set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import ops

from glm3.adapters.mindspore.kernels.base import HeadLayout, Tensor
from glm3.adapters.mindspore.kernels.dropout import dropout_settings
from glm3.adapters.mindspore.kernels.stock import StockKernels, widen

__all__ = ["CpuKernels"]

Output = int | Callable[..., list[int]]
"""The shape of an output: that of an input, by its place, or a function of all input shapes."""


@ms.jit_class
class CpuKernels(StockKernels):
    """Implement :class:`~glm3.adapters.mindspore.kernels.base.Kernels` with the library at ``library``.

    See :func:`~glm3.adapters.mindspore.kernels.compiler.kernel_library`, which makes it. An operator that
    refuses its input, such as a label outside the vocabulary, makes MindSpore raise RuntimeError with the
    operator's name.
    """

    def __init__(self, layout: HeadLayout, library: Path) -> None:
        super().__init__(layout)
        self.library = library
        self.fused_bias_add = _bias_add(library)
        self.fused_rms_norm = _rms_norm(library)
        self.fused_swiglu = _swiglu(library)
        self.fused_attention = _attention(library, layout)
        self.fused_cross_entropy = _cross_entropy(library)
        self.fused_sum_of_squares = _operator(library, "SumOfSquares", _scalar_shape)
        self.adamw = _CpuAdamW(library)
        self.dropout = _CpuDropout(library)

    def with_layout(self, layout: HeadLayout) -> CpuKernels:
        return CpuKernels(layout, self.library)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = self.matmul_transposed(x, widen(weight))
        if bias is not None:
            y = self.fused_bias_add(y, widen(bias))
        return y

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return self.fused_rms_norm(x, widen(weight), _one_number(epsilon))[0]

    def swiglu(self, h: Tensor) -> Tensor:
        return self.fused_swiglu(h)

    def attention(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        batch: int,  # noqa: ARG002  # the shapes say both
        seq: int,  # noqa: ARG002
    ) -> Tensor:
        return self.fused_attention(qkv, cos, sin)[0]

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.fused_cross_entropy(widen(logits), labels)[0]

    def sum_of_squares(self, x: Tensor) -> Tensor:
        return self.fused_sum_of_squares(x)


@ms.jit_class
class _CpuAdamW:
    """Update parameters and moments in place, each in one pass."""

    def __init__(self, library: Path) -> None:
        self.fused = _operator(library, "AdamW", _scalar_shape)
        # Without the mark a compiled graph prunes or reorders what is written in place, and says nothing.
        self.fused.add_prim_attr("side_effect_mem", True)

    def __call__(
        self,
        parameters: Sequence[Tensor],
        means: Sequence[Tensor],
        squares: Sequence[Tensor],
        gradients: Sequence[Tensor],
        settings: Tensor,
    ) -> Tensor:
        done = settings[10]
        for i in range(len(parameters)):
            updated = self.fused(parameters[i], means[i], squares[i], gradients[i], settings)
            done = ops.depend(done, updated)
        return done


@ms.jit_class
class _CpuDropout:
    """Hash and multiply in one pass; the backward pass does so again, and no mask is kept."""

    def __init__(self, library: Path) -> None:
        backward = _operator(library, "Dropout", 0)

        def bprop(
            _x: Tensor, key: Tensor, settings: Tensor, _out: Tensor, dout: Tensor
        ) -> tuple[Tensor, ...]:
            return backward(dout, key, settings), ops.zeros_like(key), ops.zeros_like(settings)

        self.fused = _operator(library, "Dropout", 0, bprop=bprop)

    def __call__(self, x: Tensor, key: Tensor, rate: float) -> Tensor:
        return self.fused(x, key, _dropout_settings(rate))


@cache
def _dropout_settings(rate: float) -> Tensor:
    return ms.Tensor(dropout_settings(rate), ms.float32)


@cache
def _one_number(value: float) -> Tensor:
    return ms.Tensor([value], ms.float32)


def _scalar_shape(*_inputs: list[int]) -> list[int]:
    return []


def _operator(library: Path, name: str, *outputs: Output, bprop: Any = None) -> ops.Custom:
    """Bind the operator ``Glm3<name>``; its outputs are of the first input's dtype, which is float32."""

    def shapes(*inputs: list[int]) -> Any:
        found = tuple(inputs[output] if isinstance(output, int) else output(*inputs) for output in outputs)
        return found if len(found) > 1 else found[0]

    def dtypes(first: Any, *_: Any) -> Any:
        return (first,) * len(outputs) if len(outputs) > 1 else first

    return ops.Custom(f"{library}:Glm3{name}", shapes, dtypes, "aot", bprop=bprop)


def _bias_add(library: Path) -> ops.Custom:
    backward = _operator(library, "BiasBackward", lambda dy: dy[-1:])

    def bprop(_x: Tensor, _bias: Tensor, _out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        return dout, backward(dout)

    return _operator(library, "BiasAdd", 0, bprop=bprop)


def _rms_norm(library: Path) -> ops.Custom:
    backward = _operator(library, "RmsNormBackward", 1, 2)

    def bprop(x: Tensor, weight: Tensor, epsilon: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        dx, dweight = backward(dout[0], x, weight, out[1])
        return dx, dweight, ops.zeros_like(epsilon)

    return _operator(library, "RmsNorm", 0, lambda x, *_: x[:-1], bprop=bprop)


def _swiglu(library: Path) -> ops.Custom:
    backward = _operator(library, "SwiGLUBackward", 1)

    def bprop(h: Tensor, _out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        return (backward(dout, h),)

    return _operator(library, "SwiGLU", lambda h: [*h[:-1], h[-1] // 2], bprop=bprop)


def _attention(library: Path, layout: HeadLayout) -> ops.Custom:
    """Bind attention; what it saves for the backward pass is ``(batch, heads, seq)``."""
    heads, width = layout.num_heads, layout.query_size
    backward = _operator(library, "AttentionBackward", 1)

    def bprop(qkv: Tensor, cos: Tensor, sin: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        dqkv = backward(dout[0], qkv, cos, sin, out[0], out[1])
        return dqkv, ops.zeros_like(cos), ops.zeros_like(sin)

    forward = _operator(
        library,
        "Attention",
        lambda qkv, *_: [qkv[0], width],
        lambda qkv, cos, *_: [qkv[0] // cos[0], heads, cos[0]],
        bprop=bprop,
    )
    # MindSpore keeps inferred shapes by name, attributes and input shapes: operators whose shapes depend on
    # anything else must differ in an attribute, or one gets the other's.
    forward.add_prim_attr("layout", f"{heads}, {width}")
    return forward


def _cross_entropy(library: Path) -> ops.Custom:
    backward = _operator(library, "CrossEntropyBackward", 2)

    def bprop(logits: Tensor, labels: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        return backward(dout[0], labels, logits, out[1]), ops.zeros_like(labels)

    return _operator(library, "CrossEntropy", _scalar_shape, lambda _, labels: [*labels, 2], bprop=bprop)
