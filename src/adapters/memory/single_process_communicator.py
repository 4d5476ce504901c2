"""The communicator port for a job of one rank."""

from __future__ import annotations

import numpy as np

from glm3.domain.errors import InvalidInputError
from glm3.domain.ports.communicator import ReduceOp
from glm3.domain.tensors import Array

__all__ = ["SingleProcessCommunicator"]


class SingleProcessCommunicator:
    """A world of one: every combination is the rank's own array, copied."""

    @property
    def rank(self) -> int:
        return 0

    @property
    def world_size(self) -> int:
        return 1

    def all_reduce(self, array: Array, op: ReduceOp = ReduceOp.SUM) -> Array:  # noqa: ARG002 - one term
        return np.array(array)

    def all_gather(self, array: Array) -> list[Array]:
        return [np.array(array)]

    def reduce_scatter(self, array: Array, op: ReduceOp = ReduceOp.SUM) -> Array:  # noqa: ARG002 - one term
        if array.ndim == 0:
            raise InvalidInputError("a scalar cannot be scattered", expected="an axis to cut")
        return np.array(array)

    def broadcast(self, array: Array, root: int = 0) -> Array:
        if root != 0:
            raise InvalidInputError("no such rank", field="root", expected="0", found=root)
        return np.array(array)

    def barrier(self) -> None:
        return
