"""Dropout whose mask is a hash of a key, so that a resumed or recomputed step draws the same one."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops

from glm3.adapters.mindspore.kernels.base import Tensor

__all__ = ["DropoutKey", "KeyedDropout"]


class DropoutKey:
    """The number all dropouts of a network hash; set before each micro-batch."""

    def __init__(self) -> None:
        self.parameter = Parameter(ms.Tensor(0, ms.uint32), name="dropout_key", requires_grad=False)

    def set(self, *identity: int) -> None:
        """Take a key that belongs to these numbers, all at least 0."""
        state = np.random.SeedSequence(identity).generate_state(1)
        self.parameter.set_data(ms.Tensor(int(state[0]), ms.uint32))


class KeyedDropout(nn.Cell):
    """Zero a share ``rate`` of the inputs and scale up the rest, in training only.

    The hash is the 32-bit finaliser of C. Wellons ("lowbias32"), over position and key. ``salt`` tells the
    dropouts of a network apart.
    """

    def __init__(self, rate: float, key: DropoutKey, salt: int) -> None:
        super().__init__(auto_prefix=False)
        self.rate = rate
        self.key = key.parameter
        self.salt = ms.Tensor(int(np.random.SeedSequence(salt).generate_state(1)[0]), ms.uint32)
        self.factors = [ms.Tensor(factor, ms.uint32) for factor in (0x7FEB352D, 0x846CA68B)]
        self.shifts = [ms.Tensor(shift, ms.uint32) for shift in (16, 15, 8)]
        self.multiply = ops.Mul()
        self.exclusive_or = ops.BitwiseXor()
        self.shift_right = ops.RightShift()

    def construct(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        first, second = self.factors
        long, middle, to_24_bits = self.shifts
        place = ops.cast(ops.arange(x.size), ms.uint32)
        bits = self._mix(place, long, first)
        bits = self.exclusive_or(bits, self.exclusive_or(self.key, self.salt))
        bits = self._mix(self._mix(bits, long, first), middle, second)
        uniform = ops.cast(self.shift_right(bits, to_24_bits), ms.float32)
        kept = ops.cast(uniform >= self.rate * 2.0**24, ms.float32) * (1.0 / (1.0 - self.rate))
        return x * ops.stop_gradient(kept.reshape(x.shape))

    def _mix(self, bits: Tensor, shift: Tensor, factor: Tensor) -> Tensor:
        return self.multiply(self.exclusive_or(bits, self.shift_right(bits, shift)), factor)
