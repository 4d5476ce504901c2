"""Which parts of which ranks' slices make a slice of another cut.

A plan is data: what to read from where, and where it goes. It reads nothing twice for one target, and of
ranks that hold copies the lowest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product

from attrs import frozen

from glm3.domain.layout.boxes import Box, intersection, relative_to
from glm3.domain.layout.strategy import JobStrategy
from glm3.domain.layout.tensor_layout import Shape, TensorLayout

__all__ = ["Piece", "gather", "pieces_of", "plan_tensor", "sources_of"]


@frozen
class Piece:
    """A part to copy: ``source`` within the slice of ``rank``, ``target`` within the slice being made."""

    rank: int
    source: Box
    target: Box


def plan_tensor(
    source: JobStrategy, target: JobStrategy, name: str, shape: Sequence[int]
) -> Mapping[int, tuple[Piece, ...]]:
    """Return, for every target rank that holds a part of a tensor of ``shape``, the pieces that make it.

    Raises:
        InvalidInputError: one of the cuts does not fit the tensor.
    """
    return {rank: gather(source, target, name, shape, rank) for rank in target.holders(name)}


def gather(
    source: JobStrategy, target: JobStrategy, name: str, shape: Sequence[int], rank: int
) -> tuple[Piece, ...]:
    """Return the pieces that make the slice of one target rank; none where it holds no part of the tensor.

    Raises:
        InvalidInputError: one of the cuts does not fit the tensor, or the target has no such rank.
    """
    box = target.slices(name, shape, rank)
    return () if box is None else pieces_of(source, name, shape, box)


def pieces_of(source: JobStrategy, name: str, shape: Sequence[int], box: Box) -> tuple[Piece, ...]:
    """Return the pieces that make any part of a tensor of ``shape``, such as some of its rows.

    Raises:
        InvalidInputError: the cut does not fit the tensor.
    """
    stage = source.stages_of(name)[0].stage
    layout = source.layout(name, len(shape), stage)
    bounds = tuple((side.start, side.stop) for side in box)  # slices cannot be hashed
    return _pieces(layout, source.first_rank(stage), tuple(shape), bounds)


def sources_of(source: JobStrategy, target: JobStrategy, shapes: Mapping[str, Shape], rank: int) -> list[int]:
    """Return the source ranks that one target rank is made of, in order.

    Raises:
        InvalidInputError: one of the cuts does not fit a tensor, or the target has no such rank.
    """
    return sorted(
        {piece.rank for name, shape in shapes.items() for piece in gather(source, target, name, shape, rank)}
    )


@lru_cache(maxsize=4096)  # the layers of a network are cut alike
def _pieces(
    layout: TensorLayout, first_rank: int, shape: Shape, bounds: tuple[tuple[int, int], ...]
) -> tuple[Piece, ...]:
    box = tuple(slice(start, stop) for start, stop in bounds)
    return tuple(
        Piece(first_rank + layout.holder(cell), relative_to(shared, held), relative_to(shared, box))
        for cell, held in _cells_in(layout, shape, box)
        if (shared := intersection(held, box)) is not None
    )


def _cells_in(layout: TensorLayout, shape: Shape, box: Box) -> Iterator[tuple[tuple[int, ...], Box]]:
    """Yield the slices that touch a box, with their places in the tensor."""
    sizes = layout.slice_shape(shape)
    ranges = [
        range(side.start // size, -(-side.stop // size)) if size else range(0)
        for side, size in zip(box, sizes, strict=True)
    ]
    for cell in product(*ranges):
        yield cell, tuple(slice(at * size, (at + 1) * size) for at, size in zip(cell, sizes, strict=True))
