"""Change the dtype of stored numbers, and refuse what would silently become infinite."""

from __future__ import annotations

import numpy as np

from glm3.domain.errors import InvalidInputError
from glm3.domain.tensors import Array, DType, from_float32, to_float32

__all__ = ["recast"]

_LARGEST = {DType.FLOAT16: 65504.0}


def recast(array: Array, source: DType, target: DType, name: str) -> Array:
    """Return carried numbers in another floating dtype, rounded to nearest even.

    The same dtype returns the very bits. ``name`` is for the error.

    Raises:
        InvalidInputError: a finite number is too large for ``target``.
    """
    if source is target:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        wide = to_float32(array, source)
        narrow = from_float32(wide, target)
        if source is DType.FLOAT16 or target is DType.FLOAT64:
            return narrow  # always fits
        lost = ~np.isfinite(to_float32(narrow, target)) & np.isfinite(
            array if source is DType.FLOAT64 else wide
        )
    if lost.any():
        raise InvalidInputError(
            f"{int(lost.sum())} numbers do not fit {target}",
            field=name,
            expected=f"at most {_LARGEST.get(target, float(np.finfo(np.float32).max))}",
            found=float(np.abs(wide[lost]).max()),
            hint="bfloat16 and float32 hold them",
        )
    return narrow
