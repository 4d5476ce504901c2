"""The communicator port for a job of one rank."""

from __future__ import annotations

import numpy as np

from glm3.domain.collectives import require_axis, require_root
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
        require_axis(array)
        return np.array(array)

    def broadcast(self, array: Array, root: int = 0) -> Array:
        require_root(root, 1)
        return np.array(array)

    def barrier(self) -> None:
        return

    def split(self, color: int) -> SingleProcessCommunicator:  # noqa: ARG002 - there is one rank
        """See :class:`glm3.domain.ports.communicator.SupportsGroups`."""
        return self
