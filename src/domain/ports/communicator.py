"""Port: collective communication between the ranks of one job."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol, runtime_checkable

from glm3.domain.tensors import Array

__all__ = ["Communicator", "ReduceOp", "SupportsGroups"]


class ReduceOp(StrEnum):
    """How ``all_reduce`` and ``reduce_scatter`` combine."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"


class Communicator(Protocol):
    """One rank's end of a job. Every rank must make the same calls in the same order.

    Where ranks can be waited for, a call raises CommunicationError once one has ended or a time-out has
    passed; the error names the ranks that are missing.
    """

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


@runtime_checkable
class SupportsGroups(Protocol):
    """A communicator whose ranks can talk among fewer of them."""

    def split(self, color: int) -> Communicator:
        """Return the communicator of those ranks that give the same ``color``, in the order they have here.

        Every rank must call it, each with a color from 0.
        """
        ...
