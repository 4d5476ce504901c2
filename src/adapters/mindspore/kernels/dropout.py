"""Dropout whose mask is a hash of places and a key, of plain operators."""

from __future__ import annotations

import mindspore as ms
from mindspore import ops

from glm3.adapters.mindspore.kernels.base import Tensor

__all__ = ["StockDropout", "dropout_settings"]


def dropout_settings(rate: float) -> tuple[float, float]:
    """Return the least hash of 24 bits that keeps a number, and the factor of what is kept."""
    return rate * 2.0**24, 1.0 / (1.0 - rate)


@ms.jit_class
class StockDropout:
    """Implement :meth:`~glm3.adapters.mindspore.kernels.base.Kernels.dropout`.

    The hash is the 32-bit finaliser of C. Wellons ("lowbias32"), with the key between its first and its
    second round.
    """

    def __init__(self) -> None:
        self.factors = [ms.Tensor(factor, ms.uint32) for factor in (0x7FEB352D, 0x846CA68B)]
        self.shifts = [ms.Tensor(shift, ms.uint32) for shift in (16, 15, 8)]
        self.multiply = ops.Mul()
        self.exclusive_or = ops.BitwiseXor()
        self.shift_right = ops.RightShift()

    def __call__(self, x: Tensor, key: Tensor, rate: float) -> Tensor:
        first, second = self.factors
        long, middle, to_24_bits = self.shifts
        threshold, scale = dropout_settings(rate)
        bits = self.exclusive_or(self._mix(ops.cast(ops.arange(x.size), ms.uint32), long, first), key)
        bits = self._mix(self._mix(bits, long, first), middle, second)
        uniform = ops.cast(self.shift_right(bits, to_24_bits), ms.float32)
        kept = ops.cast(uniform >= threshold, ms.float32) * scale
        return x * ops.stop_gradient(kept.reshape(x.shape))

    def _mix(self, bits: Tensor, shift: Tensor, factor: Tensor) -> Tensor:
        return self.multiply(self.exclusive_or(bits, self.shift_right(bits, shift)), factor)
