"""The book every checkpoint writer keeps: what was announced, what has come, what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path

import numpy as np

from glm3.domain.errors import CheckpointError
from glm3.domain.tensors import Array, TensorSpec

__all__ = ["AnnouncedTensors", "absent_tensor", "check_shape", "row_range"]

_MAX_RANK = 32  # numpy 1's limit
_MAX_BYTES = 1 << 62


def check_shape(spec: TensorSpec, path: Path | None = None) -> TensorSpec:
    """Return ``spec`` if numpy can hold such an array; guards readers against headers that lie.

    Raises:
        CheckpointError: too many axes, a negative size, or a size beyond any memory.
    """
    impossible = (
        len(spec.shape) > _MAX_RANK
        or any(size < 0 for size in spec.shape)
        or prod(max(size, 1) for size in spec.shape) * spec.dtype.itemsize > _MAX_BYTES
    )
    if impossible:
        raise CheckpointError("impossible shape", path=path, field=spec.name, found=list(spec.shape))
    return spec


def absent_tensor(name: str, known: Iterable[str], path: Path | None) -> CheckpointError:
    """Return the error for a name that a checkpoint does not hold."""
    return CheckpointError(
        "no such tensor", path=path, field=name, expected=f"one of {len(list(known))} tensors"
    )


def row_range(spec: TensorSpec, rows: slice | None) -> tuple[int, int]:
    """Return the first row and the row after the last of ``rows``; a scalar is one row.

    Raises:
        CheckpointError: rows of a scalar, a stride, or rows beyond the tensor.
    """
    length = spec.shape[0] if spec.shape else 1
    if rows is None:
        return 0, length
    start, stop = rows.start or 0, length if rows.stop is None else rows.stop
    if not spec.shape or rows.step not in (None, 1) or not 0 <= start <= stop <= length:
        raise CheckpointError(
            "no such rows", field=spec.name, expected=f"rows of shape {list(spec.shape)}", found=rows
        )
    return start, stop


class AnnouncedTensors:
    """Check every tensor that arrives against what was announced.

    Raises:
        CheckpointError: two tensors are announced under one name, or one has an impossible shape.
    """

    def __init__(self, specs: Sequence[TensorSpec], path: Path) -> None:
        self._path = path
        self._specs: dict[str, TensorSpec] = {}
        self._ranges: dict[str, list[tuple[int, int]]] = {}
        for spec in specs:
            if spec.name in self._specs:
                raise CheckpointError("announced twice", path=path, field=spec.name)
            self._specs[spec.name] = check_shape(spec, path)

    def accept(self, name: str, array: Array, rows: slice | None = None) -> tuple[Array, int]:
        """Return the array as contiguous little-endian numbers, and the byte offset inside its tensor.

        Raises:
            CheckpointError: no such name was announced, or shape or dtype differ, or it was written already.
        """
        spec = self._specs.get(name)
        if spec is None:
            raise CheckpointError("was not announced", path=self._path, field=name)
        start, stop = row_range(spec, rows)
        shape = (stop - start, *spec.shape[1:]) if spec.shape else ()
        if array.shape != shape:
            raise CheckpointError(
                "wrong shape", path=self._path, field=name, expected=list(shape), found=list(array.shape)
            )
        if array.dtype.newbyteorder("<") != spec.dtype.carrier:
            raise CheckpointError(
                f"wrong dtype for {spec.dtype}",
                path=self._path,
                field=name,
                expected=spec.dtype.carrier.name,
                found=array.dtype.name,
            )
        ranges = self._ranges.setdefault(name, [])
        whole_again = bool(ranges) and (spec.size == 0 or rows is None)
        if whole_again or any(max(start, a) < min(stop, b) for a, b in ranges):
            raise CheckpointError("was written already", path=self._path, field=name)
        ranges.append((start, stop))
        row_bytes = prod(spec.shape[1:]) * spec.dtype.itemsize
        return np.asarray(array, dtype=spec.dtype.carrier, order="C"), start * row_bytes

    def finish(self) -> None:
        """Check that everything came.

        Raises:
            CheckpointError: naming every tensor that did not come, or came in part.
        """
        missing = [name for name, spec in self._specs.items() if not self._is_complete(spec)]
        if missing:
            raise CheckpointError(
                f"{len(missing)} announced tensors were not written whole: {', '.join(missing)}",
                path=self._path,
            )

    def _is_complete(self, spec: TensorSpec) -> bool:
        ranges = self._ranges.get(spec.name, [])
        return bool(ranges) and sum(b - a for a, b in ranges) == row_range(spec, None)[1]
