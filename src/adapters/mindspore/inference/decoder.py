"""The native decoder behind ctypes: a pass of new tokens through a whole network, in one call.

MindSpore is not asked to schedule it: its ahead-of-time operators cost 83 us a call eagerly, some two hundred
a token, and its custom-operator builder compiles for half a minute at first use. A call costs 30 us here, and
works on the memory of MindSpore's own tensors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_int64, c_void_p, cast
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.adapters.mindspore.inference.cache import MindSporeCache
from glm3.adapters.mindspore.inference.structures import (
    Matrix,
    Network,
    Pass,
    Span,
    address,
    packed_matrix,
    plain_matrix,
)
from glm3.domain.errors import BackendError, InvalidInputError
from glm3.domain.quantization import PackedWeight, QuantScheme, packed_shapes
from glm3.domain.tensors import Array, DType

__all__ = ["Chunk", "NativeDecoder", "quantize_natively", "set_threads"]

FloatArray = NDArray[np.float32]

_NO_MEMORY = 2


@frozen
class Chunk:
    """New tokens of some rows, packed one row after another.

    ``spans`` are ``(row, start, length)``, in places of the row. ``cos`` and ``sin`` have a row for each
    token. ``wanted`` are the tokens whose scores are asked for.
    """

    ids: NDArray[np.int32]
    spans: Sequence[tuple[int, int, int]]
    cos: FloatArray
    sin: FloatArray
    wanted: NDArray[np.int32]


class NativeDecoder:
    """Run passes, one at a time; memory for activations is kept between them."""

    def __init__(self, library: Path) -> None:
        self._library = _load(library)
        self._decoder = c_void_p(self._library.glm3_new_decoder())
        if self._decoder.value is None:
            raise MemoryError
        self._lock = Lock()

    def __del__(self) -> None:
        if getattr(self, "_decoder", None):
            self._library.glm3_free_decoder(self._decoder)

    def run(
        self, network: Network, cache: MindSporeCache, chunk: Chunk, states: FloatArray | None = None
    ) -> FloatArray:
        """Append the chunk to the cache and return the scores of what is wanted, ``(wanted, vocab)``.

        ``states`` ``(num_layers + 1, tokens, hidden)``, if given, receives the embedding and each block's
        output.

        Raises:
            BackendError: memory is short, or network, cache and chunk do not fit each other.
        """
        scores = np.empty((len(chunk.wanted), network.vocab), np.float32)
        spans = (Span * len(chunk.spans))()
        offset = 0
        for span, (row, start, length) in zip(spans, chunk.spans, strict=True):
            cache.fill_span(span, row, offset, start, length)
            offset += length
        arrays = (chunk.cos, chunk.sin, chunk.wanted, scores, states)
        request = Pass(
            len(chunk.ids),
            len(spans),
            len(chunk.wanted),
            address(chunk.ids),
            cast(spans, POINTER(Span)),
            *(address(array) for array in arrays),
        )
        with self._lock:
            outcome = self._library.glm3_decode(
                self._decoder, byref(network), byref(cache.native_shape), cache.native, byref(request)
            )
        if outcome:
            what = "memory is short" if outcome == _NO_MEMORY else "network, cache and tokens do not fit"
            raise BackendError(f"the native decoder refused: {what}")
        return scores


def set_threads(library: Path, threads: int) -> None:
    """Set how many threads the kernels of a library start at most."""
    _load(library).glm3_set_threads(threads)


def quantize_natively(
    library: Path, array: Array, dtype: DType, scheme: QuantScheme, name: str
) -> PackedWeight:
    """Do what :func:`~glm3.domain.quantization.quantize_rows` does, on all threads.

    Raises:
        InvalidInputError: a number is not finite or too large for its scale; it names the channel.
    """
    shape = (array.shape[0], array.shape[1])
    shapes = packed_shapes(scheme, *shape)
    packed = PackedWeight(
        scheme,
        shape,
        np.empty(shapes.data, np.uint8),
        np.empty(shapes.scales, scheme.scale_dtype),
        None if shapes.zeros is None else np.empty(shapes.zeros, np.uint8),
    )
    source: Matrix = plain_matrix(address(array), shape, dtype)
    target = packed_matrix(packed)
    arrays = (c_void_p * 3)(target.data, target.scales, target.zeros)
    bad = _load(library).glm3_quantize(byref(source), byref(target), arrays)
    if bad >= 0:
        raise InvalidInputError(
            "not a number that can be stored",
            field=f"{name}, output channel {bad}",
            expected=f"finite weights within the reach of {scheme.name}",
        )
    return packed


@cache
def _load(library: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(library))
    loaded.glm3_new_decoder.restype = c_void_p
    loaded.glm3_free_decoder.argtypes = [c_void_p]
    loaded.glm3_quantize.restype = c_int64
    return loaded
