"""Frozen linear layers over rounded weights, for adapters that are trained beside them (QLoRA).

After Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, 2023.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops

from glm3.adapters.mindspore.kernels.base import Tensor
from glm3.adapters.mindspore.kernels.stock import widen
from glm3.adapters.mindspore.network import ChatGLMNetwork, Linear
from glm3.domain.parameters import layer_prefix
from glm3.domain.quantization import PackedWeight, dequantize, unpack
from glm3.domain.quantization.rounded_checkpoint import RoundedCheckpoint
from glm3.domain.quantization.scales import ZERO_STEPS
from glm3.domain.tensors import Array

__all__ = ["RoundedLinear", "hold_rounded", "rounded_layers"]

_PLACES = {
    "query_key_value": "self_attention.query_key_value",
    "dense": "self_attention.dense",
    "dense_h_to_4h": "mlp.dense_h_to_4h",
    "dense_4h_to_h": "mlp.dense_4h_to_h",
}


class RoundedLinear(nn.Cell):
    """``x @ weight.T + bias`` where the weight is ``(levels + offsets) * scales``, a byte a number.

    Args:
        base: the layer of plain weights that this one stands for; its bias is used.
        weight: the rounded weight ``(out, in)``.
    """

    def __init__(self, base: Linear, weight: PackedWeight) -> None:
        super().__init__(auto_prefix=False)
        self.stored = weight
        self.bias = base.bias
        rounded, scheme, name = unpack(weight), weight.scheme, base.weight.name
        levels = (rounded.levels.astype(np.int16) - scheme.middle).astype(np.int8)
        offsets = np.zeros((1, 1), np.float32)
        if rounded.zeros is not None:
            offsets = scheme.middle - rounded.zeros.astype(np.float32) / ZERO_STEPS
        self.levels = _frozen(levels, f"{name}.levels")
        self.scales = _frozen(rounded.scales.astype(np.float32), f"{name}.scales")
        self.offsets = _frozen(offsets, f"{name}.offsets")
        self.product = _Product(weight.shape[1], scheme.group)

    def construct(self, x: Tensor) -> Tensor:
        y = self.product(x, self.levels, self.scales, self.offsets)
        return y if self.bias is None else ops.bias_add(y, widen(self.bias))

    def numbers(self) -> Array:
        """Return the weight ``(out, in)`` in float32."""
        return dequantize(self.stored)


def hold_rounded(network: ChatGLMNetwork, rounded: RoundedCheckpoint) -> set[str]:
    """Let the blocks of a network hold their matrices as they are rounded; return the names of these."""
    held = set()
    for index, block in enumerate(network.layers):
        for place, module in _PLACES.items():
            name = f"{layer_prefix(index)}{module}.weight"
            if name in rounded.forms:
                setattr(block, place, RoundedLinear(getattr(block, place), rounded.packed(name)))
                held.add(name)
    return held


def rounded_layers(network: ChatGLMNetwork) -> dict[str, RoundedLinear]:
    """Return the layers that hold rounded weights, by the names of these."""
    found = {}
    for index, block in enumerate(network.layers):
        for place, module in _PLACES.items():
            layer = getattr(block, place)
            layer = getattr(layer, "base", layer)
            if isinstance(layer, RoundedLinear):
                found[f"{layer_prefix(index)}{module}.weight"] = layer
    return found


class _Product(nn.Cell):
    """``x @ weight.T``; the weight is widened for the product and once more for the gradient of ``x``.

    Left to automatic differentiation, every layer's wide weight would be kept from one to the other.
    """

    def __init__(self, inputs: int, group: int | None) -> None:
        super().__init__(auto_prefix=False)
        self.inputs = inputs
        self.group = group
        self.forwards = ops.MatMul(transpose_b=True)
        self.backwards = ops.MatMul()
        self.depend = ops.Depend()

    def construct(self, x: Tensor, levels: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
        return self.forwards(x, self.widened(levels, scales, offsets))

    def bprop(
        self,
        x: Tensor,  # noqa: ARG002
        levels: Tensor,
        scales: Tensor,
        offsets: Tensor,
        out: Tensor,  # noqa: ARG002
        dout: Tensor,
    ) -> tuple[Tensor, ...]:
        again = self.depend(levels, dout)  # or it would be found to be the same as the first, and kept
        dx = self.backwards(dout, self.widened(again, scales, offsets))
        return dx, ops.zeros_like(levels), ops.zeros_like(scales), ops.zeros_like(offsets)

    def widened(self, levels: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
        """Return the weight ``(out, in)`` in float32."""
        numbers = ops.cast(levels, ms.float32)
        if self.group is None:
            return (numbers + offsets) * scales
        out, groups = scales.shape
        padding = groups * self.group - self.inputs
        if padding:
            numbers = ops.concat((numbers, ops.zeros((out, padding), ms.float32)), 1)
        numbers = numbers.reshape(out, groups, self.group)
        wide = (numbers + ops.expand_dims(offsets, -1)) * ops.expand_dims(scales, -1)
        wide = wide.reshape(out, groups * self.group)
        return wide[:, : self.inputs] if padding else wide


def _frozen(array: Array, name: str) -> Parameter:
    return Parameter(ms.Tensor.from_numpy(np.ascontiguousarray(array)), name=name, requires_grad=False)
