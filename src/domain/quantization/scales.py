"""Choose the scale and the zero point of each group of a weight.

Eight bits take the scale that just covers the group. Four bits try several scales, round with each, fit the
scale to the levels by least squares, and keep the one that leaves the least squared error. For that the
numbers are brought to whole ones of up to 13 bits, so that every sum is exact in float32 whatever its order:
vectors of any width find the same scales to the bit.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm3.domain.quantization.scheme import QuantScheme

__all__ = ["ZERO_STEPS", "choose_scales", "inverse_of"]

ZERO_STEPS = 16
"""Zero points are stored as whole sixteenths of a step, 0 to 240: all 16 levels, and places between them."""

# On normally distributed weights in groups of 32, eight divisors leave an error of 0.0811, forty 0.0809; five
# widths by three shifts 0.0710, eleven by five 0.0699.
# Divisors are the level, were there one, of the largest number of a group.
_DIVISORS = (
    7.25,
    7.625,
    8.0,
    8.375,
    8.75,
    9.25,
    9.75,
    10.5,
)
_WIDTHS = (0.75, 0.8125, 0.875, 0.9375, 1.0)  # of the levels' range, as parts of the numbers'
_SHIFTS = (-4, 0, 4)  # of the zero point, in sixteenths of a step
_FIXED_POINT = 8192  # what the largest number of a group becomes
_HIGHEST_ZERO = 240

FloatArray = NDArray[np.float32]


def choose_scales(groups: FloatArray, scheme: QuantScheme) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Return scales and zero points ``(out, groups)`` for numbers ``(out, groups, group)``.

    A scale is not finite where a number is not, or where the scale is too large to be stored.
    """
    low, high = groups.min(-1), groups.max(-1)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        covering = _covering(low, high, scheme)
        if scheme.symmetric:
            zeros = None if scheme.bits == 8 else np.zeros_like(covering, np.float32)
        else:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
            zeros = _clipped_zero(np.rint(-low * inverse_of(covering) * ZERO_STEPS))
        if zeros is None:
            return covering, None
        largest = np.maximum(-low, high)
        unit = np.float32(_FIXED_POINT) / largest
        candidates = _divisors(low, high) if scheme.symmetric else _ranges(low, high)
        best = np.full(covering.shape, -1.0)
        scales = np.zeros(covering.shape)
        whole = np.rint(groups * unit[..., None])
        found = zeros
        for inverse, zero in candidates:
            score, fitted = _fit(groups, whole, inverse, zero, scheme)
            better = score > best
            best = np.where(better, score, best)
            scales = np.where(better, fitted, scales)
            found = np.where(better, zero, found)
        stored = (scales / unit).astype(np.float32).astype(scheme.scale_dtype)
        usable = np.isfinite(unit) & np.isfinite(covering) & np.isfinite(stored) & (stored != 0)
        chosen = np.where(usable, stored, covering)
    if scheme.symmetric:
        return chosen, None
    return chosen, np.where(usable, found, np.nan_to_num(zeros)).astype(np.uint8)


def inverse_of(scales: NDArray[Any]) -> FloatArray:
    """Return what numbers are multiplied by to become levels; 0 where the scale is."""
    wide = scales.astype(np.float32)
    with np.errstate(divide="ignore"):
        return np.where(wide == 0, np.float32(0), np.float32(1) / wide)


def _covering(low: FloatArray, high: FloatArray, scheme: QuantScheme) -> NDArray[Any]:
    if not scheme.symmetric:
        steps = (np.maximum(high, 0) - np.minimum(low, 0)) / np.float32(scheme.levels - 1)
    elif scheme.bits == 4:  # the larger side takes the extra level: 0 stands for it, whatever its sign
        steps = np.where(-low >= high, low, high) / np.float32(-scheme.middle)
    else:
        steps = np.maximum(-low, high) / np.float32(scheme.middle - 1)
    covering: NDArray[Any] = steps.astype(scheme.scale_dtype)
    return covering


def _divisors(low: FloatArray, high: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """Return the factors that bring the larger side to each divisor, as a negative level."""
    larger = np.where(-low >= high, low, high)
    return [(np.float32(-divisor) / larger, np.zeros_like(larger)) for divisor in _DIVISORS]


def _ranges(low: FloatArray, high: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """Return factors and zero points that spread the levels over parts of the range around its middle."""
    step, middle = (high - low) / np.float32(15), (high + low) * np.float32(0.5)
    found = []
    for width, shift in product(_WIDTHS, _SHIFTS):
        inverse = np.float32(1) / (step * np.float32(width))
        centre = np.rint(middle * (inverse * np.float32(-ZERO_STEPS)))  # of 15 / 2 levels
        found.append((inverse, _clipped_zero(centre + np.float32(_HIGHEST_ZERO // 2 + shift))))
    return found


def _clipped_zero(zeros: FloatArray) -> FloatArray:
    clipped: FloatArray = np.clip(zeros, 0, _HIGHEST_ZERO)
    return clipped


def _fit(
    groups: FloatArray, whole: FloatArray, inverse: FloatArray, zero: FloatArray, scheme: QuantScheme
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how much of the squared numbers one choice of levels explains, and the scale that does."""
    if scheme.symmetric:
        levels = np.clip(np.rint(groups * inverse[..., None]), -8, 7)
        of_products, of_squares = _sum(levels * whole), _sum(levels * levels)
    else:
        sixteenths = np.rint(groups * (inverse * np.float32(ZERO_STEPS))[..., None]) + zero[..., None]
        levels = np.clip(np.rint(sixteenths * np.float32(1 / ZERO_STEPS)), 0, 15)
        z = zero.astype(np.float64)
        of_products = ZERO_STEPS * _sum(levels * whole) - z * _sum(whole)
        of_squares = (
            ZERO_STEPS**2 * _sum(levels * levels)
            - 2 * ZERO_STEPS * z * _sum(levels)
            + groups.shape[-1] * z * z
        )
    scale: NDArray[np.float64] = np.where(of_squares > 0, of_products / of_squares, 0.0)
    return scale * of_products, scale if scheme.symmetric else ZERO_STEPS * scale


def _sum(terms: FloatArray) -> NDArray[np.float64]:
    """Sum over groups; the terms are whole numbers, hence the order does not matter."""
    total: NDArray[np.float64] = terms.sum(-1, dtype=np.float64)
    return total
