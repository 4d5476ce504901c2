"""The rounding port over numpy: the reference itself."""

from __future__ import annotations

from glm3.domain.errors import InvalidInputError
from glm3.domain.quantization import PackedWeight, QuantScheme, quantize_rows
from glm3.domain.tensors import Array, DType, to_float32

__all__ = ["NumpyQuantizer"]


class NumpyQuantizer:
    """See :class:`glm3.domain.ports.quantizer.Quantizer`."""

    def quantize(self, array: Array, dtype: DType, scheme: QuantScheme, name: str) -> PackedWeight:
        try:
            return quantize_rows(to_float32(array, dtype), scheme)
        except InvalidInputError as error:
            error.field = name if error.field is None else f"{name}, {error.field}"
            raise
