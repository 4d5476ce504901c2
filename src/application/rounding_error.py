"""How far rounded weights are from what they were, by kind of matrix."""

from __future__ import annotations

import numpy as np

from glm3.domain.parameters import EMBEDDING, OUTPUT_LAYER
from glm3.domain.quantization import ROW_BLOCK, PackedWeight, dequantize
from glm3.domain.tensors import Array, DType, to_float32

__all__ = ["RoundingErrors"]

_SAMPLED_BLOCKS = 8
"""Row blocks of each part that are compared: all of a small matrix, a thirtieth of a 6B model's."""


class RoundingErrors:
    """Sums of squares, collected while weights pass by."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, name: str, array: Array, dtype: DType, weight: PackedWeight) -> None:
        """Compare some rows of ``array (out, in)`` with what they were rounded to."""
        blocks = -(-len(array) // ROW_BLOCK)
        kind = _kind(name)
        for block in range(0, blocks, max(1, blocks // _SAMPLED_BLOCKS)):
            rows = to_float32(array[block * ROW_BLOCK : (block + 1) * ROW_BLOCK], dtype)
            taken = slice(block, block + 1)
            part = PackedWeight(
                weight.scheme,
                (len(rows), weight.shape[1]),
                weight.data[taken],
                weight.scales[taken],
                None if weight.zeros is None else weight.zeros[taken],
            )
            lost, all_ = self._sums.get(kind, (0.0, 0.0))
            wide = rows.astype(np.float64)
            lost += float(np.sum((dequantize(part) - wide) ** 2))
            self._sums[kind] = lost, all_ + float(np.sum(wide**2))

    def relative(self) -> dict[str, float]:
        """Return the root mean square error over that of the weights, by kind of matrix."""
        return {
            kind: float(np.sqrt(lost / all_)) if all_ else 0.0 for kind, (lost, all_) in self._sums.items()
        }


def _kind(name: str) -> str:
    if name == EMBEDDING:
        return "embedding"
    if name == OUTPUT_LAYER:
        return "output_layer"
    return name.removesuffix(".weight").rsplit(".", 1)[-1]
