"""Sum the gradients of the ranks of a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import mindspore as ms
import numpy as np
from attrs import frozen
from mindspore import Parameter, ops

from glm3.adapters.mindspore.kernels.base import Tensor

__all__ = ["BUCKET", "GradientExchange", "Group", "KeyValueExchange"]

BUCKET = 1 << 20
"""Numbers that are joined and summed at once; a larger gradient is summed by itself, without a copy.

A collective of 2 ranks takes a millisecond however small it is, and the sum of so many numbers 15.
"""


@frozen
class Group:
    """The ranks that share the work: the runtime's ``name`` of them, this one's ``rank``, their number.

    ``world`` are all of the job: among fewer the CPU gathers nothing.
    """

    name: str
    rank: int
    size: int
    world: bool = True

    def gathering(self) -> Callable[[Tensor], Tensor]:
        """Return what makes of float32 rows, as many of each rank, those of all, one after another."""
        if self.world:
            gather: Callable[[Tensor], Tensor] = ops.AllGather(group=self.name)
            return gather
        total = ops.AllReduce(group=self.name)

        def add_up(rows: Tensor) -> Tensor:
            own = rows.asnumpy()
            placed = np.zeros((self.size, *own.shape), np.float32)
            placed[self.rank] = own
            return total(ms.Tensor.from_numpy(placed)).reshape((-1, *own.shape[1:]))

        return add_up


@frozen
class _Bucket:
    """Gradients summed at once, from ``start`` to ``stop``; shared ones are cut to this rank's rows."""

    start: int
    stop: int
    shared: bool


class GradientExchange:
    """Sum gradients over ranks in flat buckets; of a parameter that is ``shared`` keep this rank's rows.

    It runs between two graphs and not inside one: a graph on the CPU holds everything that it has computed
    until it ends, gradients, sums and rows: 0.2 GB more with 40 million parameters on 2 ranks, for no speed.
    The CPU has no reduce_scatter either: a sum is made whole and then cut.
    """

    def __init__(
        self, parameters: Sequence[Parameter], shared: Mapping[str, slice], group: Group, bucket: int = BUCKET
    ) -> None:
        self._sum = ops.AllReduce(group=group.name)
        self._group = group
        self._rows = [shared.get(parameter.name) for parameter in parameters]
        self._shapes = [tuple(parameter.shape) for parameter in parameters]
        self._buckets = _cut(
            [prod(shape) for shape in self._shapes], [rows is not None for rows in self._rows], bucket
        )

    def sum(self, gradients: list[Tensor]) -> None:
        """Replace each gradient in the list by the sum over all ranks, whole or this rank's rows.

        Whole ones go as soon as they have been summed, if the list alone holds them.
        """
        for bucket in self._buckets:
            if bucket.stop - bucket.start == 1:
                total, rows = self._sum(gradients[bucket.start]), self._rows[bucket.start]
                gradients[bucket.start] = total if rows is None else _copy(total, rows)
            else:
                self._sum_joined(gradients, bucket)

    def _sum_joined(self, gradients: list[Tensor], bucket: _Bucket) -> None:
        """Lay shared gradients side by side as ranks by numbers, so that a row is what one rank needs."""
        ranks = self._group.size if bucket.shared else 1
        flat = [gradients[i].reshape((ranks, -1)) for i in range(bucket.start, bucket.stop)]
        total = self._sum(ops.concat(flat, 1)).asnumpy()[self._group.rank if bucket.shared else 0]
        offset = 0
        for i in range(bucket.start, bucket.stop):
            rows, shape = self._rows[i], self._shapes[i]
            own = shape if rows is None else (rows.stop - rows.start, *shape[1:])
            gradients[i] = ms.Tensor(total[offset : offset + prod(own)].reshape(own))
            offset += prod(own)


class KeyValueExchange:
    """Sum the gradients of key and value over the model parallel ranks that hold the same group.

    ``indices`` says where in the list the gradients of the joined matrices are. A rank holds the query, key
    and value ``rows`` of ``size``, of which the first ``queries`` are all queries.
    """

    def __init__(
        self, indices: Sequence[int], rows: tuple[slice, slice, slice], queries: int, size: int, group: Group
    ) -> None:
        self._indices = tuple(indices)
        self._shape = (size - queries,)
        own = rows[0].stop - rows[0].start
        self._moves = []  # from rows of a gradient to rows of all keys and values
        for part in rows[1:]:
            length = part.stop - part.start
            there = slice(part.start - queries, part.stop - queries)
            self._moves.append((slice(own, own + length), there))
            own += length
        self._sum = ops.AllReduce(group=group.name)

    def sum(self, gradients: list[Tensor]) -> None:
        """Replace the rows of key and value by the sum over all ranks that have them."""
        for index in self._indices:
            gradient = np.array(gradients[index].asnumpy())
            placed = np.zeros((*self._shape, *gradient.shape[1:]), np.float32)
            for here, there in self._moves:
                placed[there] = gradient[here]
            total = self._sum(ms.Tensor.from_numpy(placed)).asnumpy()
            for here, there in self._moves:
                gradient[here] = total[there]
            gradients[index] = ms.Tensor.from_numpy(gradient)


def _copy(total: Tensor, rows: slice) -> Tensor:
    """Return rows that do not hold the rest in memory, as a slice would."""
    return ms.Tensor.from_numpy(np.array(total.asnumpy()[rows]))


def _cut(sizes: Sequence[int], shared: Sequence[bool], limit: int) -> list[_Bucket]:
    """Return neighbours of one kind in buckets of at most ``limit`` numbers, or of one gradient."""
    buckets: list[_Bucket] = []
    start, filled = 0, 0
    for i, size in enumerate(sizes):
        if i > start and (filled + size > limit or shared[i] != shared[start]):
            buckets.append(_Bucket(start, i, shared[start]))
            start, filled = i, 0
        filled += size
    return [*buckets, _Bucket(start, len(sizes), shared[start])] if sizes else buckets
