"""What the native inference kernels take, field by field as their C++ headers have it.

They hold addresses, not arrays: whoever makes one keeps the arrays alive.
"""

from __future__ import annotations

from ctypes import POINTER, Structure, c_float, c_int64, c_void_p
from typing import Any

from numpy.typing import NDArray

from glm3.domain.quantization import PackedWeight
from glm3.domain.tensors import DType

__all__ = [
    "CACHE_FORMATS",
    "Block",
    "CacheShape",
    "LayerCache",
    "Matrix",
    "Network",
    "Pass",
    "Projection",
    "Span",
    "Vector",
    "address",
    "packed_matrix",
    "plain_matrix",
]

_STORAGES = {DType.FLOAT32: 0, DType.FLOAT16: 1, DType.BFLOAT16: 2}
_PACKED_STORAGES = {8: 3, 4: 4}
CACHE_FORMATS = {"fp32": 0, "fp16": 1, "int8": 2}


class Matrix(Structure):
    """A weight ``(out, inputs)``; see ``matrix.h``."""

    _fields_ = [
        *((name, c_int64) for name in ("storage", "group", "out", "inputs")),
        *((name, c_void_p) for name in ("data", "scales", "zeros")),
    ]


class Vector(Structure):
    """A norm's weight or a bias; see ``decoder.h``."""

    _fields_ = [("storage", c_int64), ("data", c_void_p)]


class Projection(Structure):
    """A weight and its bias; see ``decoder.h``."""

    _fields_ = [("weight", Matrix), ("bias", Vector)]


class Block(Structure):
    """The weights of one transformer block; see ``decoder.h``."""

    _fields_ = [
        ("input_layernorm", Vector),
        ("post_attention_layernorm", Vector),
        *((name, Projection) for name in ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")),
    ]


class Network(Structure):
    """Sizes and weights; see ``decoder.h``."""

    _fields_ = [
        *(
            (name, c_int64)
            for name in (
                "num_layers",
                "hidden",
                "ffn",
                "num_heads",
                "num_kv_heads",
                "head_dim",
                "rotary_dim",
                "vocab",
                "residual_behind_norm",
            )
        ),
        ("epsilon", c_float),
        ("embedding", Matrix),
        ("blocks", POINTER(Block)),
        ("final_layernorm", Vector),
        ("output_layer", Projection),
    ]


class Span(Structure):
    """New tokens of one sequence and the table of its blocks; see ``cached_attention.h``."""

    _fields_ = [
        ("blocks", c_void_p),
        *((name, c_int64) for name in ("block_count", "offset", "start", "length")),
    ]


class CacheShape(Structure):
    """Sizes and number format of a KV cache; see ``kv_cache.h``."""

    _fields_ = [(name, c_int64) for name in ("format", "blocks", "block_size", "num_kv_heads", "head_dim")]


class LayerCache(Structure):
    """The arrays of one layer's cache; see ``kv_cache.h``."""

    _fields_ = [(name, c_void_p) for name in ("keys", "values", "key_scales", "value_scales")]


class Pass(Structure):
    """New tokens and what is wanted of them; see ``decoder.h``."""

    _fields_ = [
        *((name, c_int64) for name in ("tokens", "span_count", "wanted_count")),
        ("ids", c_void_p),
        ("spans", POINTER(Span)),
        *((name, c_void_p) for name in ("cos", "sin", "wanted", "logits", "states")),
    ]


def address(array: NDArray[Any] | None) -> int | None:
    """Return where a C-contiguous array starts."""
    return None if array is None else array.ctypes.data


def plain_matrix(where: int | None, shape: tuple[int, int], dtype: DType) -> Matrix:
    """Describe numbers stored row by row."""
    return Matrix(_STORAGES[dtype], 0, *shape, where, None, None)


def packed_matrix(weight: PackedWeight) -> Matrix:
    """Describe a packed weight."""
    arrays = (address(array) for array in (weight.data, weight.scales, weight.zeros))
    return Matrix(_PACKED_STORAGES[weight.scheme.bits], weight.scheme.group or 0, *weight.shape, *arrays)


def plain_vector(where: int | None, dtype: DType) -> Vector:
    """Describe a norm's weight or a bias."""
    return Vector(_STORAGES[dtype], where)
