"""Port: collective communication between the ranks of one job."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from glm3.domain.tensors import Array

__all__ = ["Communicator", "ReduceOp"]


class ReduceOp(StrEnum):
    """How ``all_reduce`` and ``reduce_scatter`` combine."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"


class Communicator(Protocol):
    """One rank's end of a job. Every rank must make the same calls in the same order."""

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    def all_reduce(self, array: Array, op: ReduceOp = ReduceOp.SUM) -> Array:
        """Return the elementwise combination over all ranks, the same shape on each."""
        ...

    def all_gather(self, array: Array) -> list[Array]:
        """Return every rank's array, by rank; shapes may differ."""
        ...

    def reduce_scatter(self, array: Array, op: ReduceOp = ReduceOp.SUM) -> Array:
        """Return this rank's part of the combination, cut along axis 0.

        Where ``world_size`` does not divide the axis, the first ranks get one row more.
        """
        ...

    def broadcast(self, array: Array, root: int = 0) -> Array:
        """Return the root's array on every rank."""
        ...

    def barrier(self) -> None:
        """Return once every rank has called it."""
        ...
