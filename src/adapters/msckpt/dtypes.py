"""MindSpore's names of the element types."""

from __future__ import annotations

from glm3.domain.tensors import DType

__all__ = ["DTYPES", "TEXT_TYPE", "TYPE_NAMES"]

DTYPES = {
    "Float64": DType.FLOAT64,
    "Float32": DType.FLOAT32,
    "Float16": DType.FLOAT16,
    "BFloat16": DType.BFLOAT16,
    "Int64": DType.INT64,
    "Int32": DType.INT32,
    "Int16": DType.INT16,
    "Int8": DType.INT8,
    "UInt8": DType.UINT8,
    "Bool": DType.BOOL,
}
TYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
TEXT_TYPE = "str"
"""A text of ``append_dict``: numpy's UTF-32, dims ``[0]``."""
