"""Weights in few bits: the schemes, the stored layout that kernels read, and the rounding."""

from glm3.domain.quantization.layout import LAYOUT_VERSION, ROW_BLOCK, PackedShapes, packed_shapes
from glm3.domain.quantization.packed import Levels, PackedWeight, dequantize, pack, quantize_rows, unpack
from glm3.domain.quantization.scheme import QuantScheme

__all__ = [
    "LAYOUT_VERSION",
    "ROW_BLOCK",
    "Levels",
    "PackedShapes",
    "PackedWeight",
    "QuantScheme",
    "dequantize",
    "pack",
    "packed_shapes",
    "quantize_rows",
    "unpack",
]
