"""Port: round weights."""

from __future__ import annotations

from typing import Protocol

from glm3.domain.quantization import PackedWeight, QuantScheme
from glm3.domain.tensors import Array, DType

__all__ = ["Quantizer"]


class Quantizer(Protocol):
    """Rounds as :func:`glm3.domain.quantization.quantize_rows` does, to the bit."""

    def quantize(self, array: Array, dtype: DType, scheme: QuantScheme, name: str) -> PackedWeight:
        """Round numbers ``(out, in)`` of any floating dtype, carried as :mod:`glm3.domain.tensors` says.

        Raises:
            InvalidInputError: a number is not finite or too large for its scale; it names the weight.
            BackendError: the runtime is not usable here.
        """
        ...
