"""The names of floating-point types in Python calls."""

from __future__ import annotations

from glm3.domain.errors import UsageError
from glm3.domain.tensors import DType

__all__ = ["floating_dtype"]

_NAMES = (DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16)


def floating_dtype(name: str) -> DType:
    """Return the type called ``name``.

    Raises:
        UsageError: it is none that weights are kept in.
    """
    if name not in _NAMES:
        raise UsageError(
            "no such dtype", field="dtype", expected="float32, float16 or bfloat16", found=repr(name)
        )
    return DType(name)
