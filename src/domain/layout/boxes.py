"""Parts of a tensor: one slice with start and stop for every axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from glm3.domain.errors import CheckpointError, raise_faults

__all__ = ["Box", "box_shape", "check_cover", "format_box", "intersection", "relative_to", "whole"]

Box = tuple[slice, ...]


def whole(shape: Sequence[int]) -> Box:
    """Return the box of a complete tensor."""
    return tuple(slice(0, size) for size in shape)


def box_shape(box: Box) -> tuple[int, ...]:
    """Return the lengths of a box's sides."""
    return tuple(side.stop - side.start for side in box)


def intersection(first: Box, second: Box) -> Box | None:
    """Return the part that two boxes share, or None."""
    sides = tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(first, second, strict=True)
    )
    return sides if all(side.start < side.stop for side in sides) else None


def relative_to(box: Box, outer: Box) -> Box:
    """Return a box in the coordinates of one that contains it."""
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, outer, strict=True))


def format_box(box: Box) -> str:
    """Write a box as one indexes with it: ``[0:4, 8:16]``."""
    return "[" + ", ".join(f"{side.start}:{side.stop}" for side in box) + "]"


def check_cover(shape: Sequence[int], boxes: Mapping[int, Box], name: str = "tensor") -> None:
    """Make sure that boxes, by the rank that holds each, make a tensor of ``shape`` without gap or overlap.

    Equal boxes are copies, and allowed.

    Raises:
        CheckpointError: a box reaches outside, boxes overlap, or a part is in none; MultipleFaultsError names
            every such part.
    """
    ranks: dict[tuple[tuple[int, int], ...], int] = {}  # slices cannot be hashed
    for rank, box in sorted(boxes.items()):
        ranks.setdefault(tuple((side.start, side.stop) for side in box), rank)
    held = [(tuple(slice(*side) for side in bounds), rank) for bounds, rank in ranks.items()]
    faults = [
        CheckpointError(
            f"rank {rank} holds a part outside of the tensor",
            field=name,
            expected=f"a part of {format_box(whole(shape))}",
            found=format_box(box),
        )
        for box, rank in held
        if len(box) != len(shape)
        or any(not 0 <= s.start < s.stop <= n for s, n in zip(box, shape, strict=False))
    ]
    faults = faults or _overlaps(held, name) + _gaps(shape, [box for box, _ in held], name)
    raise_faults(f"{name}: the slices do not make the tensor", faults)


def _overlaps(held: Sequence[tuple[Box, int]], name: str) -> list[CheckpointError]:
    """Return a fault for every two boxes that share a part, sweeping along the first axis."""
    faults: list[CheckpointError] = []
    active: list[tuple[Box, int]] = []
    for box, rank in sorted(held, key=lambda item: [side.start for side in item[0]]):
        active = [(other, owner) for other, owner in active if not box or other[0].stop > box[0].start]
        for other, owner in active:
            shared = intersection(box, other)
            if shared is not None:
                faults.append(
                    CheckpointError(
                        f"ranks {min(owner, rank)} and {max(owner, rank)} hold slices that overlap",
                        field=name,
                        found=format_box(shared),
                    )
                )
        active.append((box, rank))
    return faults


def _gaps(shape: Sequence[int], boxes: Sequence[Box], name: str) -> list[CheckpointError]:
    """Return a fault for every part in no box, cut at the boxes' own borders."""
    borders = [
        sorted({0, size, *(side for box in boxes for side in (box[axis].start, box[axis].stop))})
        for axis, size in enumerate(shape)
    ]
    covered = np.zeros([len(cuts) - 1 for cuts in borders], bool)
    for box in boxes:
        covered[
            tuple(
                slice(cuts.index(side.start), cuts.index(side.stop))
                for cuts, side in zip(borders, box, strict=True)
            )
        ] = True
    if prod(shape) == 0 or covered.all():
        return []
    return [
        CheckpointError(
            "no rank holds a part of the tensor",
            field=name,
            expected=format_box(
                tuple(slice(cuts[at], cuts[at + 1]) for cuts, at in zip(borders, place, strict=True))
            ),
        )
        for place in np.argwhere(~covered).tolist()
    ]
