"""What it costs attention that keys and values lie in blocks, at the heads of ChatGLM3-6B.

A step of new tokens is written and attends over a context, in each of 28 layers: in one piece of memory, in
blocks in order (as one conversation has them) and in blocks in any order (as many requests have them). Each
round takes all three in turn; the median over rounds of its ratio to one piece is printed.

    python benchmarks/cached_attention.py
    python benchmarks/cached_attention.py --context 8192 --tokens 64 --block-size 64
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from ctypes import Structure, byref, c_int64, c_void_p
from typing import Any

import numpy as np

from glm3.adapters.mindspore.inference.cache import BLOCK_SIZE
from glm3.adapters.mindspore.inference.structures import CACHE_FORMATS, CacheShape, LayerCache, Span, address
from glm3.adapters.mindspore.kernels.compiler import kernel_library
from glm3.entrypoints.paths import cache_folder

HEADS, KV_HEADS, HEAD_DIM, LAYERS = 32, 2, 128, 28
DTYPES = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}


class CachedAttention(Structure):
    """See ``cached_attention.h``."""

    _fields_ = [
        ("cache", CacheShape),
        ("num_heads", c_int64),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("rotary_dim", c_int64),
    ]


class Bench:
    """One format's caches, and a step over them with any table of blocks."""

    def __init__(self, library: ctypes.CDLL, format_: str, places: int, tokens: int) -> None:
        generator = np.random.default_rng(0)
        self._library = library
        self._format = CACHE_FORMATS[format_]
        self._places, self._start, self._tokens = places, places - tokens, tokens
        shape = (places, KV_HEADS, HEAD_DIM)
        self._arrays = [
            [
                *(np.ones(shape, DTYPES[format_]) for _ in "kv"),
                *(np.ones(shape[:2], np.float32) for _ in "kv"),
            ]
            for _ in range(LAYERS)
        ]
        self._layers = [LayerCache(*map(address, arrays)) for arrays in self._arrays]
        self._angles = generator.standard_normal((tokens, HEAD_DIM // 4)).astype(np.float32)
        width = (HEADS + 2 * KV_HEADS) * HEAD_DIM
        self._qkv = generator.standard_normal((tokens, width)).astype(np.float32)
        self._out = np.empty((tokens, HEADS * HEAD_DIM), np.float32)

    def step(self, size: int, table: Any) -> Callable[[], None]:
        """Return what runs one step with blocks of so many places."""
        blocks = np.asarray(table, np.int32)
        shape = CacheShape(self._format, self._places // size, size, KV_HEADS, HEAD_DIM)
        angles = address(self._angles)
        attention = CachedAttention(shape, HEADS, angles, angles, HEAD_DIM // 2)
        span = Span(address(blocks), len(blocks), 0, self._start, self._tokens)
        pointers = (c_void_p(address(self._qkv)), byref(span), c_int64(1), c_void_p(address(self._out)))

        def run() -> None:
            for layer in self._layers:
                if self._library.glm3_cached_attention(byref(attention), byref(layer), *pointers):
                    raise SystemExit("the kernel refused")
            assert len(blocks)  # kept alive as long as this can run

        return run


def seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--block-size", type=int, default=BLOCK_SIZE)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    build = kernel_library(cache_folder() / "kernels", unit="inference.cpp", report=print)
    if build is None:
        raise SystemExit("no C++ compiler")
    library, size = ctypes.CDLL(str(build.path)), options.block_size
    count = -(-(options.context + options.tokens) // size)
    for format_ in DTYPES:
        bench = Bench(library, format_, count * size, options.tokens)
        steps = {
            "one piece": bench.step(count * size, [0]),
            "in order": bench.step(size, np.arange(count)),
            "any order": bench.step(size, np.random.default_rng(1).permutation(count)),
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for index in range(options.rounds):
            for name in list(steps)[:: 1 if index % 2 else -1]:
                times[name].append(seconds(steps[name]))
        whole = times["one piece"]
        ratios = {
            name: statistics.median(a / b for a, b in zip(taken, whole, strict=True))
            for name, taken in times.items()
        }
        print(
            f"{format_}: {statistics.median(whole) / LAYERS * 1e6:.0f} us a layer in one piece; "
            f"blocks of {size} in order {ratios['in order']:.3f}, in any order {ratios['any order']:.3f}"
        )


if __name__ == "__main__":
    main()
