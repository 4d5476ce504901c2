"""How one tensor is cut over the ranks of a pipeline stage.

The rules are those of MindSpore's semi-automatic parallelism. The ranks of a stage are arranged, in row-major
order, in a device matrix. Each axis of a tensor is cut evenly along one axis of that matrix, or not at all;
ranks that differ only along the other axes hold copies. The optimizer shard then cuts axis 0 of what is left
among the ranks that hold copies, neighbours first.

Every cut is even, so the slices form a regular grid: ``grid`` says how many lie along each axis, and
``cell`` which one a rank holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

from attrs import evolve, frozen

from glm3.domain.errors import InvalidInputError, raise_faults

__all__ = ["UNCUT", "Shape", "TensorLayout"]

Shape = tuple[int, ...]

UNCUT = -1
"""The entry of a tensor map whose axis is whole on every rank."""

_ALL_COPIES = -1


@frozen
class TensorLayout:
    """A cut, as MindSpore's strategy files state it.

    ``tensor_map`` has one entry a tensor axis: the axis of ``device_matrix`` that cuts it, counted from the
    right from 0, or -1. ``optimizer_shard_size`` is the number of ranks that share what would be copies: 0
    for none, -1 for all; ``optimizer_shard_step`` is the distance between neighbours among them. ``field``
    is MindSpore's for embeddings of several fields, which this network has none of; it is kept as read.

    Raises:
        InvalidInputError: the parts contradict each other; MultipleFaultsError where several do.
    """

    device_matrix: tuple[int, ...]
    tensor_map: tuple[int, ...]
    optimizer_shard_step: int = 0
    optimizer_shard_size: int = 0
    field: int = 0

    def __attrs_post_init__(self) -> None:
        raise_faults("the layout contradicts itself", self._axis_faults() or self._shard_faults())

    @property
    def num_ranks(self) -> int:
        """Ranks of the stage."""
        return prod(self.device_matrix)

    @property
    def cuts(self) -> tuple[int, ...]:
        """Parts of each tensor axis, before the optimizer shard."""
        return tuple(1 if index == UNCUT else self.device_matrix[-1 - index] for index in self.tensor_map)

    @property
    def copies(self) -> int:
        """Ranks that hold the same slice, before the optimizer shard."""
        return self.num_ranks // prod(self.cuts)

    @property
    def optimizer_shards(self) -> int:
        """Parts that the optimizer shard makes of a slice; 1 for none."""
        if not self.optimizer_shard_step or not self.optimizer_shard_size:
            return 1
        return self.copies if self.optimizer_shard_size == _ALL_COPIES else self.optimizer_shard_size

    @property
    def grid(self) -> tuple[int, ...]:
        """Slices along each tensor axis, the optimizer shard included."""
        cuts = self.cuts
        return (cuts[0] * self.optimizer_shards, *cuts[1:]) if cuts else ()

    def cell(self, rank: int) -> tuple[int, ...]:
        """Return the place in ``grid`` of the slice that ``rank`` of the stage holds."""
        return _cells(self)[rank]

    def holder(self, cell: tuple[int, ...]) -> int:
        """Return the lowest rank of the stage that holds a slice."""
        return _holders(self)[cell]

    def slice_shape(self, shape: Sequence[int]) -> Shape:
        """Return the shape of every rank's slice of a tensor of ``shape``.

        Raises:
            InvalidInputError: the layout does not fit the tensor.
        """
        self.check(shape)
        return tuple(size // parts for size, parts in zip(shape, self.grid, strict=True))

    def full_shape(self, slice_shape: Sequence[int]) -> Shape:
        """Return the shape of the tensor that slices of ``slice_shape`` make.

        Raises:
            InvalidInputError: a slice has another number of axes than the layout.
        """
        self._check_rank_of_tensor(slice_shape)
        return tuple(size * parts for size, parts in zip(slice_shape, self.grid, strict=True))

    def slices(self, shape: Sequence[int], rank: int) -> tuple[slice, ...]:
        """Return the part of a tensor of ``shape`` that ``rank`` of the stage holds, as one slice an axis.

        Raises:
            InvalidInputError: the layout does not fit the tensor, or the stage has no such rank.
        """
        if not 0 <= rank < self.num_ranks:
            raise InvalidInputError(
                "the stage has no such rank", field="rank", expected=f"0 to {self.num_ranks - 1}", found=rank
            )
        sizes = self.slice_shape(shape)
        return tuple(
            slice(place * size, (place + 1) * size)
            for place, size in zip(self.cell(rank), sizes, strict=True)
        )

    def check(self, shape: Sequence[int]) -> None:
        """Make sure that the layout cuts a tensor of ``shape`` evenly.

        Raises:
            InvalidInputError: it does not; MultipleFaultsError names every axis where several do not.
        """
        self._check_rank_of_tensor(shape)
        faults = [
            InvalidInputError(
                "the axis is not divisible by its cut",
                field=f"axis {axis}",
                expected=f"a multiple of {parts}",
                found=shape[axis],
            )
            for axis, parts in enumerate(self.cuts)
            if shape[axis] % parts
        ]
        if not faults and self.optimizer_shards > 1 and (shape[0] // self.cuts[0]) % self.optimizer_shards:
            faults.append(
                InvalidInputError(
                    "axis 0 of the slice is not divisible by the optimizer shard",
                    field="optimizer_shard_size",
                    expected=f"a divisor of {shape[0] // self.cuts[0]}",
                    found=self.optimizer_shards,
                )
            )
        raise_faults(f"the layout does not fit a tensor of shape {tuple(shape)}", faults)

    def with_optimizer_shard(self, shape: Sequence[int]) -> TensorLayout:
        """Return the layout with its copies of a tensor of ``shape`` shared out by the optimizer shard.

        As in MindSpore, nothing changes where there are no copies, or where axis 0 of the slice is not
        divisible by their number: such a tensor stays whole.
        """
        self.check(shape)
        if not self.tensor_map or self.copies == 1 or (shape[0] // self.cuts[0]) % self.copies:
            return evolve(self, optimizer_shard_step=0, optimizer_shard_size=0)
        return evolve(self, optimizer_shard_step=self._copy_step, optimizer_shard_size=_ALL_COPIES)

    @property
    def _copy_axes(self) -> list[int]:
        """Axes of the device matrix, from the left, along which ranks hold copies."""
        used = {len(self.device_matrix) - 1 - index for index in self.tensor_map if index != UNCUT}
        return [axis for axis, size in enumerate(self.device_matrix) if axis not in used and size > 1]

    @property
    def _copy_sizes(self) -> list[int]:
        return [self.device_matrix[axis] for axis in self._copy_axes]

    @property
    def _copy_step(self) -> int:
        """Distance of neighbouring ranks that hold copies."""
        return prod(self.device_matrix[self._copy_axes[-1] + 1 :])

    def _check_rank_of_tensor(self, shape: Sequence[int]) -> None:
        if len(shape) != len(self.tensor_map):
            raise InvalidInputError(
                "the tensor has another number of axes than the layout",
                field="tensor_map",
                expected=f"{len(shape)} entries",
                found=self.tensor_map,
            )

    def _axis_faults(self) -> list[InvalidInputError]:
        axes = len(self.device_matrix)
        if any(size < 1 for size in self.device_matrix):
            return [
                InvalidInputError("an axis without ranks", field="device_matrix", found=self.device_matrix)
            ]
        faults: list[InvalidInputError] = []
        for index in dict.fromkeys(self.tensor_map):
            if not UNCUT <= index < axes:
                faults.append(
                    InvalidInputError(
                        "the index lies outside the device matrix",
                        field="tensor_map",
                        expected=f"-1 to {axes - 1}",
                        found=index,
                    )
                )
            elif index != UNCUT and self.tensor_map.count(index) > 1:
                faults.append(
                    InvalidInputError(
                        "two axes of the tensor are cut along one axis of the device matrix",
                        field="tensor_map",
                        found=self.tensor_map,
                    )
                )
        return faults

    def _shard_faults(self) -> list[InvalidInputError]:
        step, size = self.optimizer_shard_step, self.optimizer_shard_size
        if step < 0 or size < _ALL_COPIES:
            return [
                InvalidInputError(
                    "an optimizer shard of no meaning",
                    field="optimizer_shard_size",
                    expected="a step of 0 or more, and a size of -1 or more",
                    found=f"step {step}, size {size}",
                )
            ]
        if self.optimizer_shards == 1:
            return []
        if not self.tensor_map:
            return [
                InvalidInputError("a scalar has no axis to shard", field="optimizer_shard_size", found=size)
            ]
        if not self._shard_fits_the_copies():
            return [
                InvalidInputError(
                    "the optimizer shard does not divide the ranks that hold copies",
                    field="optimizer_shard_size",
                    expected=f"whole axes of {self._copy_sizes} from the right, and a divisor of the next",
                    found=size,
                )
            ]
        if step != self._copy_step:
            return [
                InvalidInputError(
                    "the optimizer shard names ranks that hold no copies",
                    field="optimizer_shard_step",
                    expected=self._copy_step,
                    found=step,
                )
            ]
        return []

    def _shard_fits_the_copies(self) -> bool:
        """Tell whether the shard fills whole axes of copies from the right, and divides the last one."""
        left = self.optimizer_shards
        for size in reversed(self._copy_sizes):
            if left <= size:
                return size % left == 0
            if left % size:
                return False
            left //= size
        return left == 1


@lru_cache(maxsize=256)
def _cells(layout: TensorLayout) -> tuple[tuple[int, ...], ...]:
    """Return every rank's cell."""
    return tuple(_cell(layout, rank) for rank in range(layout.num_ranks))


def _cell(layout: TensorLayout, rank: int) -> tuple[int, ...]:
    coordinates: list[int] = []
    for size in reversed(layout.device_matrix):  # the rightmost axis runs fastest
        rank, coordinate = divmod(rank, size)
        coordinates.append(coordinate)
    place = [0 if index == UNCUT else coordinates[index] for index in layout.tensor_map]
    shards = layout.optimizer_shards
    if shards > 1:
        copy = 0
        for axis in layout._copy_axes:
            copy = copy * layout.device_matrix[axis] + coordinates[-1 - axis]
        place[0] = place[0] * shards + copy % shards
    return tuple(place)


@lru_cache(maxsize=256)
def _holders(layout: TensorLayout) -> dict[tuple[int, ...], int]:
    """Return the lowest rank that holds each cell."""
    return {cell: rank for rank, cell in reversed(list(enumerate(_cells(layout))))}
