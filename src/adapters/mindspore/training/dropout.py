"""Dropout whose mask is a hash of a key, so that a resumed or recomputed step draws the same one."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops

from glm3.adapters.mindspore.kernels.base import Kernels, Tensor

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

    ``salt`` tells the dropouts of a network apart.
    """

    def __init__(self, kernels: Kernels, rate: float, key: DropoutKey, salt: int) -> None:
        super().__init__(auto_prefix=False)
        self.kernels = kernels
        self.rate = rate
        self.key = key.parameter
        self.salt = ms.Tensor(int(np.random.SeedSequence(salt).generate_state(1)[0]), ms.uint32)
        self.exclusive_or = ops.BitwiseXor()

    def construct(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return self.kernels.dropout(x, self.exclusive_or(self.key, self.salt), self.rate)
