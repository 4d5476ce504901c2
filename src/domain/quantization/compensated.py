"""Rounding that makes up for its own errors: what one input loses, the inputs behind it take over.

Given the second moments of a matrix' inputs over some text, each column is rounded in turn and the columns
that are still to come are moved so that the outputs change least.
Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
2022, https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm3.domain.errors import InvalidInputError
from glm3.domain.quantization.packed import Levels, PackedWeight, pack
from glm3.domain.quantization.scales import ZERO_STEPS, choose_scales, inverse_of
from glm3.domain.quantization.scheme import QuantScheme

__all__ = ["feedback_factor", "round_compensated"]

_DAMPINGS = (0.01, 0.1, 1.0)  # of the mean moment, added to each: the paper's choice, and more if it must be
_BLOCK = 128  # columns whose errors reach the others together; every group size divides it
_PANEL = 512  # columns that are factorised together
_WIDE = 6000  # inputs from which float64 would take gigabytes

FloatArray = NDArray[Any]


def feedback_factor(moments: FloatArray) -> FloatArray:
    """Return the upper triangular U with ``inverse(moments) = U.T @ U``, for ``(in, in)`` summed products.

    Raises:
        InvalidInputError: the moments are not finite, or no inverse can be found.
    """
    if not np.isfinite(moments).all():
        raise InvalidInputError("the inputs of a matrix are not finite", expected="finite weights and text")
    # Turned by half a circle the lower factor of the moments is an upper one, whose inverse is U.
    for damping in _DAMPINGS:
        damped: FloatArray = moments[::-1, ::-1].astype(np.float32 if len(moments) > _WIDE else np.float64)
        diagonal = np.einsum("ii->i", damped)
        diagonal += damping * diagonal.mean() + np.finfo(np.float32).tiny
        try:
            _factorize(damped)
        except np.linalg.LinAlgError:  # too few tokens for so many inputs, in float32
            continue
        upper: FloatArray = np.ascontiguousarray(damped[::-1, ::-1])
        del damped
        _invert(upper)
        return upper
    raise InvalidInputError(
        "the inputs of a matrix depend on each other too much",
        expected="a text of thousands of different tokens",
    )


def _factorize(matrix: FloatArray) -> None:
    """Replace a symmetric matrix by its lower Cholesky factor; numpy's own would widen and copy all of it."""
    size = len(matrix)
    for first in range(0, size, _PANEL):
        last = min(first + _PANEL, size)
        corner = np.linalg.cholesky(matrix[first:last, first:last])
        matrix[first:last, first:last] = corner
        matrix[first:last, last:] = 0
        matrix[last:, first:last] = matrix[last:, first:last] @ np.linalg.inv(corner).T
        for column in range(last, size, _PANEL):
            end = min(column + _PANEL, size)
            below = matrix[column:, first:last]
            matrix[column:, column:end] -= below @ below[: end - column].T


def _invert(upper: FloatArray) -> None:
    """Replace an upper triangular matrix by its inverse, with little memory beside it."""
    half = len(upper) // 2
    if len(upper) <= _BLOCK:
        upper[:] = np.linalg.inv(upper)
        return
    first, corner, last = upper[:half, :half], upper[:half, half:], upper[half:, half:]
    _invert(first)
    _invert(last)
    corner[:] = first @ corner
    corner[:] = corner @ -last


def round_compensated(rows: NDArray[np.float32], factor: FloatArray, scheme: QuantScheme) -> PackedWeight:
    """Round a weight ``(out, in)`` with the :func:`feedback_factor` of its inputs; channels are independent.

    Raises:
        InvalidInputError: a number is not finite, or too large for its scale; it names the channel.
    """
    moved = rows.astype(factor.dtype)
    channels, inputs = rows.shape
    group = scheme.group or inputs
    levels = np.empty(rows.shape, np.uint8)
    scales = np.empty((channels, -(-inputs // group)), scheme.scale_dtype)
    zeros = None if scheme.symmetric else np.empty(scales.shape, np.uint8)
    lowest, highest = (1 if scheme.bits == 8 else 0), scheme.levels - 1
    for first in range(0, inputs, _BLOCK):
        last = min(first + _BLOCK, inputs)
        errors = np.empty((channels, last - first), factor.dtype)
        for column in range(first, last):
            if column % group == 0:
                _choose(moved[:, column : column + group], scheme, column // group, scales, zeros)
            place = column // group
            scale = scales[:, place].astype(factor.dtype)
            middle = scheme.middle if zeros is None else zeros[:, place].astype(factor.dtype) / ZERO_STEPS
            inverse = inverse_of(scales[:, place])
            chosen = np.clip(np.rint(moved[:, column] * inverse + middle), lowest, highest)
            levels[:, column] = chosen
            error = (moved[:, column] - scale * (chosen - middle)) / factor[column, column]
            errors[:, column - first] = error
            moved[:, column:last] -= np.outer(error, factor[column, column:last])
        moved[:, last:] -= errors @ factor[first:last, last:]
    return pack(Levels(levels, scales, zeros), scheme)


def _choose(
    columns: FloatArray,
    scheme: QuantScheme,
    place: int,
    scales: NDArray[Any],
    zeros: NDArray[np.uint8] | None,
) -> None:
    """Choose the scales of one group as it is when its turn comes."""
    found, shifted = choose_scales(columns.astype(np.float32)[:, None], scheme)
    if not np.isfinite(found).all():
        channel = int(np.argmin(np.isfinite(found[:, 0])))
        raise InvalidInputError(
            "not a number that can be stored", field=f"output channel {channel}", expected="finite weights"
        )
    scales[:, place] = found[:, 0]
    if zeros is not None and shifted is not None:
        zeros[:, place] = shifted[:, 0]
