"""Packed weights: rounding, packing, and the numpy reference of what they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.domain.errors import CheckpointError, InvalidInputError
from glm3.domain.quantization.layout import (
    ROW_BLOCK,
    SMALLEST_GROUP,
    deinterleave,
    interleave,
    packed_shapes,
    per_group,
    to_blocks,
)
from glm3.domain.quantization.scales import ZERO_STEPS, choose_scales, inverse_of
from glm3.domain.quantization.scheme import QuantScheme

__all__ = ["Levels", "PackedWeight", "dequantize", "pack", "quantize_rows", "unpack"]

_CHUNK = 64 * ROW_BLOCK  # channels rounded at once: bounds the memory beside input and output

FloatArray = NDArray[np.float32]


@frozen(eq=False)
class Levels:
    """A rounded weight in the order of its matrix.

    ``levels`` are ``(out, in)``, ``scales`` and ``zeros`` ``(out, groups)``. Zeros
    are in sixteenths of a step, and None where the scheme is symmetric.
    """

    levels: NDArray[np.uint8]
    scales: NDArray[Any]
    zeros: NDArray[np.uint8] | None = None


@frozen(eq=False)
class PackedWeight:
    """A weight ``shape (out, in)`` as it is stored; see :mod:`glm3.domain.quantization.layout`.

    The arrays may be read-only views of a mapped file; they are C-contiguous.
    """

    scheme: QuantScheme
    shape: tuple[int, int]
    data: NDArray[np.uint8]
    scales: NDArray[Any]
    zeros: NDArray[np.uint8] | None = None

    def __attrs_post_init__(self) -> None:
        """Check that the arrays are what scheme and shape ask for.

        Raises:
            CheckpointError: one of them has another shape or dtype.
        """
        wanted = packed_shapes(self.scheme, *self.shape)
        bytes_ = np.dtype(np.uint8)
        for field, array, shape, dtype in (
            ("data", self.data, wanted.data, bytes_),
            ("scales", self.scales, wanted.scales, self.scheme.scale_dtype),
            ("zeros", self.zeros, wanted.zeros, bytes_),
        ):
            found = None if array is None else (array.shape, array.dtype)
            expected = None if shape is None else (shape, dtype)
            if found != expected or (array is not None and not array.flags.c_contiguous):
                raise CheckpointError(
                    f"not what {self.scheme.name} stores of a weight {self.shape}",
                    field=field,
                    expected=expected,
                    found=found,
                )

    @property
    def nbytes(self) -> int:
        return packed_shapes(self.scheme, *self.shape).nbytes


def pack(rounded: Levels, scheme: QuantScheme) -> PackedWeight:
    """Bring a rounded weight into the stored layout."""
    zeros = None if rounded.zeros is None else to_blocks(rounded.zeros).astype(np.uint8, copy=False)
    out_features, in_features = rounded.levels.shape
    return PackedWeight(
        scheme,
        (out_features, in_features),
        interleave(rounded.levels, scheme),
        to_blocks(rounded.scales.astype(scheme.scale_dtype, copy=False)),
        zeros,
    )


def unpack(weight: PackedWeight) -> Levels:
    """Return what :func:`pack` was given, exactly."""
    zeros = None if weight.zeros is None else per_group(weight.zeros, weight.shape[0]).astype(np.uint8)
    return Levels(
        deinterleave(weight.data, weight.scheme, *weight.shape),
        per_group(weight.scales, weight.shape[0]),
        zeros,
    )


def dequantize(weight: PackedWeight) -> FloatArray:
    """Return the numbers ``(out, in)`` that a packed weight stands for, in float32."""
    rounded, scheme = unpack(weight), weight.scheme
    in_features = weight.shape[1]
    scales = _spread(rounded.scales.astype(np.float32), scheme, in_features)
    if rounded.zeros is None:
        zeros: FloatArray | np.float32 = np.float32(scheme.middle)
    else:
        zeros = _spread(rounded.zeros.astype(np.float32) / ZERO_STEPS, scheme, in_features)
    return scales * (rounded.levels.astype(np.float32) - zeros)


def quantize_rows(array: NDArray[Any], scheme: QuantScheme) -> PackedWeight:
    """Round a weight ``(out, in)`` with the scales of :func:`choose_scales`, and pack it.

    Takes float16, float32 or float64; beside input and output it needs the memory of a thousand channels.

    Raises:
        InvalidInputError: it is no matrix, or a number is not finite or too large for its scale.
    """
    if array.ndim != 2 or 0 in array.shape:
        raise InvalidInputError("not a weight matrix", expected="(out, in)", found=array.shape)
    shape = (array.shape[0], array.shape[1])
    wanted = packed_shapes(scheme, *shape)
    data = np.empty(wanted.data, np.uint8)
    scales = np.empty(wanted.scales, scheme.scale_dtype)
    zeros = None if wanted.zeros is None else np.empty(wanted.zeros, np.uint8)
    for first in range(0, shape[0], _CHUNK):
        part = pack(_round(array[first : first + _CHUNK].astype(np.float32), scheme, first), scheme)
        blocks = slice(first // ROW_BLOCK, first // ROW_BLOCK + len(part.data))
        data[blocks], scales[blocks] = part.data, part.scales
        if zeros is not None and part.zeros is not None:
            zeros[blocks] = part.zeros
    return PackedWeight(scheme, shape, data, scales, zeros)


def _round(rows: FloatArray, scheme: QuantScheme, first: int) -> Levels:
    """Round channels; the scale is rounded to its stored precision before the levels are chosen."""
    in_features = rows.shape[1]
    padded = np.pad(rows, [(0, 0), (0, -in_features % (scheme.group or SMALLEST_GROUP))])
    grouped = padded.reshape(len(rows), -1, scheme.group or padded.shape[1])
    scales, zeros = choose_scales(grouped, scheme)
    if not np.isfinite(scales).all():
        channel = first + int(np.argmin(np.isfinite(scales).all(-1)))
        raise InvalidInputError(
            "not a number that can be stored", field=f"output channel {channel}", expected="finite weights"
        )
    inverse = inverse_of(scales)
    if zeros is None:
        lowest = 1 - scheme.middle if scheme.bits == 8 else -scheme.middle  # -127: pairs fit 16 bits
        rounded = np.clip(np.rint(grouped * inverse[..., None]), lowest, scheme.middle - 1)
        levels = rounded + np.float32(scheme.middle)
    else:
        exact = grouped.astype(np.float64) * inverse[..., None] + zeros[..., None] / ZERO_STEPS
        levels = np.clip(np.rint(exact), 0, scheme.levels - 1).astype(np.float32)
    flat = levels.astype(np.uint8).reshape(len(rows), -1)[:, :in_features]
    return Levels(flat, scales, zeros)


def _spread(values: FloatArray, scheme: QuantScheme, in_features: int) -> FloatArray:
    """Repeat one number a group ``(out, groups)`` over the group's inputs ``(out, in)``."""
    if scheme.group is None:
        return values
    return values.repeat(scheme.group, axis=1)[:, :in_features]
