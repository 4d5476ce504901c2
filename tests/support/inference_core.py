"""Call the inference kernels without MindSpore."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int, c_int64, c_void_p

import numpy as np

from glm3.adapters.mindspore.inference import structures
from glm3.adapters.mindspore.inference.structures import (
    CACHE_FORMATS,
    CacheShape,
    LayerCache,
    Matrix,
    Span,
)
from glm3.domain.quantization import PackedWeight, QuantScheme, packed_shapes
from glm3.domain.tensors import DType, to_float32
from support.libraries import library

GUARD = 64  # numbers before and behind each output that no kernel may touch
CANARY = np.float32(-1234.5)


class CachedAttention(Structure):
    _fields_ = [
        ("cache", CacheShape),
        ("num_heads", c_int64),
        ("cos", POINTER(c_float)),
        ("sin", POINTER(c_float)),
        ("rotary_dim", c_int64),
    ]


def plain_matrix(carrier: np.ndarray, dtype: DType) -> Matrix:
    """Describe numbers stored row by row."""
    return _holding(structures.plain_matrix(_address(carrier), carrier.shape, dtype), carrier)


def packed_matrix(weight: PackedWeight) -> Matrix:
    """Describe a packed weight."""
    return _holding(structures.packed_matrix(weight), weight.data, weight.scales, weight.zeros)


class LayerStore:
    """One layer's cache as numpy arrays: a pool of blocks."""

    def __init__(self, format_: str, blocks: int, block_size: int, kv_heads: int, head_dim: int) -> None:
        dtype = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}[format_]
        shape = (blocks, block_size, kv_heads, head_dim)
        self.shape = CacheShape(CACHE_FORMATS[format_], *shape)
        self.numbers = [np.zeros(shape, dtype) for _ in range(2)]
        self.scales = (
            [np.zeros(shape[:3], np.float32) for _ in range(2)] if format_ == "int8" else [None, None]
        )
        self.tables: list[np.ndarray] = []
        arrays = (*self.numbers, *self.scales)
        self.layer = _holding(LayerCache(*map(_address, arrays)), *arrays)

    def span(self, table: Sequence[int], offset: int, start: int, length: int) -> Span:
        """Describe new tokens of a sequence that has these blocks."""
        blocks = np.array(table, np.int32)
        self.tables.append(blocks)
        return Span(_address(blocks), len(blocks), offset, start, length)

    def slots(self, table: Sequence[int], length: int) -> np.ndarray:
        """Return where the first positions of a sequence are among all places of the pool."""
        positions, size = np.arange(length), self.shape.block_size
        return np.asarray(table, np.int64)[positions // size] * size + positions % size

    @property
    def flat(self) -> list[np.ndarray]:
        """The numbers by place: keys and values ``(places, kv_heads, head_dim)``."""
        return [numbers.reshape(-1, *numbers.shape[2:]) for numbers in self.numbers]

    @property
    def flat_scales(self) -> list[np.ndarray | None]:
        return [None if s is None else s.reshape(-1, s.shape[2]) for s in self.scales]

    def widened(self) -> list[np.ndarray]:
        """Return the keys and values that are stored, in float64, by place."""
        return [
            numbers.astype(np.float64) * (1 if scales is None else scales[..., None].astype(np.float64))
            for numbers, scales in zip(self.flat, self.flat_scales, strict=True)
        ]


class InferenceCore:
    """The C functions of a library, with numpy arrays in and out."""

    def __init__(self, build: str) -> None:
        self.library = library(build)

    @property
    def bfloat16_tokens(self) -> int:
        """The fewest tokens whose inputs and packed weights are rounded to bfloat16; 0: never."""
        return self.library.call("bfloat16_tokens", result=c_int64)

    def in_bfloat16(self, tokens: int) -> bool:
        return 0 < self.bfloat16_tokens <= tokens

    def widen(self, carrier, dtype: DType):
        y = _guarded((carrier.size,))
        storage = c_int64(plain_matrix(carrier.reshape(1, -1), dtype).storage)
        self.library.call("widen", storage, carrier, y, c_int64(carrier.size))
        return _checked(y)

    def narrow(self, x):
        y = np.zeros(x.size, np.float16)
        self.library.call("narrow", x, y, c_int64(x.size))
        return y

    def quantize(self, source: Matrix, scheme: QuantScheme) -> PackedWeight:
        """Round on the native side; ValueError names the channel that cannot be stored."""
        shape = (source.out, source.inputs)
        shapes = packed_shapes(scheme, *shape)
        arrays = [
            np.full(shapes.data, 0xA5, np.uint8),
            np.full(shapes.scales, np.nan, scheme.scale_dtype),
            None if shapes.zeros is None else np.full(shapes.zeros, 0xA5, np.uint8),
        ]
        addresses = _holding((c_void_p * 3)(*map(_address, arrays)), *arrays)
        weight = PackedWeight(scheme, shape, *arrays)
        bad = self.library.call("quantize", source, packed_matrix(weight), addresses, result=c_int64)
        if bad != -1:
            raise ValueError(f"channel {bad}")
        return weight

    def take_rows(self, matrix: Matrix, ids):
        y = _guarded((len(ids), matrix.inputs))
        self._ask("take_rows", matrix, np.asarray(ids, np.int32), y, c_int64(len(ids)))
        return _checked(y)

    def product(self, matrix: Matrix, x, bias=None, residual=None, y=None):
        """Return the product, into ``y`` if given; ``x`` may be its residual."""
        tokens = len(x)
        guarded = _guarded((tokens, matrix.out)) if y is None else None
        self._ask("product", matrix, x, bias, residual, guarded if y is None else y, c_int64(tokens))
        return _checked(guarded) if y is None else y

    def cached_attention(self, store: LayerStore, num_heads: int, cos, sin, qkv, spans: Sequence[Span]):
        as_floats = [array.ctypes.data_as(POINTER(c_float)) for array in (cos, sin)]
        attention = CachedAttention(store.shape, num_heads, *as_floats, 2 * cos.shape[1])
        out = _guarded((len(qkv), num_heads * store.shape.head_dim))
        self._ask(
            "cached_attention",
            _holding(attention, cos, sin),
            store.layer,
            qkv,
            _holding((Span * len(spans))(*spans), *store.tables),
            c_int64(len(spans)),
            out,
        )
        return _checked(out)

    def _ask(self, name: str, *arguments) -> None:
        if outcome := self.library.call(name, *arguments, result=c_int):
            raise ValueError(f"refused with {outcome}")


def product_oracle(weight64, x, bias=None, residual=None):
    y = x.astype(np.float64) @ weight64.T
    for term in (bias, residual):
        y = y if term is None else y + term
    return y


def numbers_of(carrier, dtype: DType):
    return to_float32(carrier, dtype).astype(np.float64)


def _address(array) -> int | None:
    if array is None:
        return None
    assert array.flags.c_contiguous
    return array.ctypes.data


def _holding(structure, *arrays):
    """Keep arrays beside a structure that has their addresses."""
    structure.arrays = arrays
    return structure


def _guarded(shape):
    flat = np.full(int(np.prod(shape)) + 2 * GUARD, CANARY, np.float32)
    return flat[GUARD : len(flat) - GUARD].reshape(shape)


def _checked(array):
    flat = array.base if array.base.base is None else array.base.base
    assert (flat[:GUARD] == CANARY).all(), "wrote before its output"
    assert (flat[len(flat) - GUARD :] == CANARY).all(), "wrote behind its output"
    return array.copy()
