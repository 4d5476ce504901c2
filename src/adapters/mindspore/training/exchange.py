"""What ranks give each other inside a compiled step: sums of gradients, and updated rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from attrs import frozen
from mindspore import Parameter, nn, ops

from glm3.adapters.mindspore.kernels.base import Tensor

__all__ = ["BUCKET", "GradientExchange", "Group"]

BUCKET = 8 << 20
"""Numbers that are summed at a time. A collective of 2 ranks takes a millisecond however small it is, and the
copy of a bucket takes memory."""


@frozen
class Group:
    """The ranks that share the work: the runtime's ``name`` of them, this one's ``rank``, their number."""

    name: str
    rank: int
    size: int


@frozen
class _Bucket:
    """Gradients summed at once, from ``start`` to ``stop``; shared ones are cut to this rank's rows."""

    start: int
    stop: int
    shared: bool


class GradientExchange(nn.Cell):
    """Sum gradients over ranks in flat buckets; of a parameter that is ``shared`` keep this rank's rows.

    The CPU has no reduce_scatter: the sum is made whole and then cut. A bucket waits for the one before it,
    as every rank must run its collectives in the same order.
    """

    def __init__(
        self, parameters: Sequence[Parameter], shared: Mapping[str, slice], group: Group, bucket: int = BUCKET
    ) -> None:
        super().__init__(auto_prefix=False)
        self.group_size, self.own = group.size, group.rank
        self.sum = ops.AllReduce(group=group.name)
        self.gather = ops.AllGather(group=group.name)
        self.sizes = tuple(prod(parameter.shape) for parameter in parameters)
        self.shared = tuple(parameter.name in shared for parameter in parameters)
        self.shapes = tuple(
            (parameter.shape[0] // group.size, *parameter.shape[1:])
            if parameter.name in shared
            else tuple(parameter.shape)
            for parameter in parameters
        )
        self.buckets = tuple(
            (bucket.start, bucket.stop, bucket.shared) for bucket in _cut(self.sizes, self.shared, bucket)
        )

    def construct(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums over all ranks, whole or this rank's rows."""
        summed = []
        before = gradients[0]
        for start, stop, shared in self.buckets:
            rows = self.group_size if shared else 1
            flat = [gradients[i].reshape((rows, -1)) for i in range(start, stop)]
            joined = flat[0] if len(flat) == 1 else ops.concat(flat, 1)
            total = self.sum(ops.depend(joined, before))
            before = total
            own = total[self.own if shared else 0]
            offset = 0
            for i in range(start, stop):
                size = self.sizes[i] // rows
                summed.append(own[offset : offset + size].reshape(self.shapes[i]))
                offset += size
        return summed


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
