"""Rounded weights for Ascend's quantised product: levels, scales and offsets as the operator reads them."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from attrs import frozen
from mindspore import Parameter, nn, ops
from numpy.typing import NDArray

from glm3.adapters.mindspore.kernels.ascend.operators import QuantizedMatmul
from glm3.adapters.mindspore.kernels.ascend.reference import quantized_matmul_reference
from glm3.adapters.mindspore.kernels.ascend.rules import verify
from glm3.adapters.mindspore.kernels.base import Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.domain.quantization import PackedWeight, QuantScheme, quantize_rows, unpack
from glm3.domain.quantization.scales import ZERO_STEPS

__all__ = ["AscendLevels", "QuantizedLinear", "ascend_levels", "quantize_network"]


@frozen(eq=False)
class AscendLevels:
    """A weight is ``(levels + offsets) * scales``: levels ``(in, out)`` int8, the others ``(groups, out)``.

    ``group`` inputs share a scale; 0 means all of them.
    """

    levels: NDArray[np.int8]
    scales: NDArray[np.float32]
    offsets: NDArray[np.float32]
    group: int
    bits: int

    def packed(self) -> NDArray[np.int8]:
        """Join neighbours of four bits along the output, the first in the low half."""
        low, high = self.levels[:, ::2].view(np.uint8), self.levels[:, 1::2].view(np.uint8)
        joined: NDArray[np.int8] = ((low & 15) | (high << 4)).view(np.int8)
        return joined


def ascend_levels(weight: PackedWeight) -> AscendLevels:
    """Return what a packed weight ``(out, in)`` stands for in the operator's form."""
    rounded, scheme = unpack(weight), weight.scheme
    scales = rounded.scales.astype(np.float32).T
    zeros = np.full(scales.shape, scheme.middle, np.float32)
    if rounded.zeros is not None:
        zeros = rounded.zeros.astype(np.float32).T / ZERO_STEPS
    levels = (rounded.levels.T.astype(np.int16) - scheme.middle).astype(np.int8)
    return AscendLevels(levels, scales, scheme.middle - zeros, scheme.group or 0, scheme.bits)


class QuantizedLinear(nn.Cell):
    """``x @ weight + bias`` over rounded levels, by the fused operator or by its reference.

    Raises:
        InvalidInputError: the operator does not take the matrix or the group.
    """

    def __init__(
        self, name: str, weight: AscendLevels, bias: Parameter | None, dtype: Any, *, fused: bool
    ) -> None:
        super().__init__(auto_prefix=False)
        scales, offsets = (a if weight.group else a[0] for a in (weight.scales, weight.offsets))
        rows, columns = weight.levels.shape
        if fused:
            shapes = [(1, rows), (rows, columns), scales.shape, offsets.shape]
            half = str(dtype)
            verify("WeightQuantBatchMatmul", shapes, [half, "Int8", half, half], weight.group)
        self.dtype = dtype
        self.bias = bias
        self.group = weight.group
        self.fused = QuantizedMatmul(weight.group) if fused else None
        levels = ms.Tensor(weight.levels)
        if fused and weight.bits == 4:
            levels = ms.Tensor(weight.packed(), dtype=ms.qint4x2)
        self.levels = Parameter(levels, name=f"{name}.levels", requires_grad=False)
        self.scales = Parameter(ms.Tensor(scales, dtype), name=f"{name}.scales", requires_grad=False)
        self.offsets = Parameter(ms.Tensor(offsets, dtype), name=f"{name}.offsets", requires_grad=False)

    def construct(self, x: Tensor) -> Tensor:
        x = ops.cast(x, self.dtype)
        if self.fused is None:
            y = quantized_matmul_reference(x, self.levels, self.scales, self.offsets, self.group)
        else:
            y = self.fused(x, self.levels, self.scales, self.offsets)
        if self.bias is not None:
            y = y + ops.cast(self.bias, self.dtype)
        return y


def quantize_network(network: ChatGLMNetwork, scheme: QuantScheme) -> None:
    """Round every matrix of the blocks; embedding, head and norms stay as they are.

    The product is fused where the network's kernels use that operator.

    Raises:
        InvalidInputError: a weight cannot be rounded, or the operator does not take it.
    """
    kernels: Any = network.kernels
    fused = "WeightQuantBatchMatmul" in kernels.fused
    for block in network.layers:
        for name in ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"):
            linear = getattr(block, name)
            array = ops.cast(linear.weight, ms.float32).asnumpy()
            levels = ascend_levels(quantize_rows(array, scheme))
            rounded = QuantizedLinear(linear.weight.name, levels, linear.bias, kernels.dtype, fused=fused)
            setattr(block, name, rounded)
