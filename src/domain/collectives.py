"""What collectives compute, on the arrays of all ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glm3.domain.errors import InvalidInputError
from glm3.domain.ports.communicator import ReduceOp
from glm3.domain.tensors import Array

__all__ = ["combine", "missing_ranks", "part_of", "require_axis", "require_root"]


def combine(arrays: Sequence[Array], op: ReduceOp) -> Array:
    """Combine arrays of one shape and dtype elementwise, in the order of ranks; the dtype stays."""
    result = np.array(arrays[0])
    for array in arrays[1:]:
        result = np.maximum(result, array) if op is ReduceOp.MAX else np.add(result, array)
    if op is ReduceOp.MEAN:
        result = result / len(arrays)
    return np.asarray(result).astype(arrays[0].dtype, copy=False)


def part_of(rows: int, rank: int, world_size: int) -> slice:
    """Return the rows that fall to a rank when an axis is dealt out; the first ranks get one row more."""
    each, more = divmod(rows, world_size)
    start = rank * each + min(rank, more)
    return slice(start, start + each + (rank < more))


def require_axis(array: Array) -> None:
    """Refuse to cut what has no axis.

    Raises:
        InvalidInputError: it is a scalar.
    """
    if np.ndim(array) == 0:
        raise InvalidInputError("a scalar cannot be scattered", expected="an axis to cut")


def require_root(root: int, world_size: int) -> None:
    """Check that a rank is one of the world.

    Raises:
        InvalidInputError: it is not.
    """
    if not 0 <= root < world_size:
        raise InvalidInputError("no such rank", field="root", expected=f"0 to {world_size - 1}", found=root)


def missing_ranks(ranks: Sequence[int]) -> str:
    """Name ranks in a sentence, cut to a readable number."""
    named = ", ".join(map(str, ranks[:16]))
    more = f" and {len(ranks) - 16} more" if len(ranks) > 16 else ""
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {named}{more}"
