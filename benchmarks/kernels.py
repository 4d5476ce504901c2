"""How near the products with packed weights come to what this machine can do, at the shapes of ChatGLM3-6B.

One token is limited by reading the weights, many tokens by taking dot products; both limits are measured in
the same rounds, before and after each kernel, by the same threads. Weights are synthetic, and enough of them
that no cache holds them. A round's ratio counts, and the median over rounds is printed: speeds drift on
shared machines, ratios less.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --scheme int8 --tokens 1 --tokens 512 --threads 4 --json kernels.json
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from ctypes import byref, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from glm3.adapters.mindspore.inference.structures import Matrix, address, packed_matrix, plain_matrix
from glm3.adapters.mindspore.kernels.compiler import UNIT, kernel_library
from glm3.adapters.mindspore.kernels.cores import physical_cores
from glm3.domain.quantization import PackedWeight, QuantScheme, packed_shapes
from glm3.domain.tensors import DType
from glm3.entrypoints.paths import cache_folder

SHAPES = {
    "query_key_value": (4608, 4096),
    "dense": (4096, 4096),
    "dense_h_to_4h": (27392, 4096),
    "dense_4h_to_h": (4096, 13696),
    "output_layer": (65024, 4096),
}
CACHED = 640 << 20  # bytes of weights that a round goes through


def library(unit: str) -> ctypes.CDLL:
    build = kernel_library(cache_folder() / "kernels", unit=unit, report=print)
    if build is None:
        raise SystemExit("no C++ compiler")
    return ctypes.CDLL(str(build.path))


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def weights(name: str, scheme: str) -> list[tuple[Matrix, Any]]:
    """Return as many copies of a weight as no cache holds, with the arrays behind each."""
    shape = SHAPES[name]
    generator = np.random.default_rng(0)
    if scheme in (kind.value for kind in (DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16)):
        dtype = DType(scheme)
        number = np.float32(0.01).astype(np.float16).view(np.uint16) if dtype is DType.FLOAT16 else 0x3C23
        size = int(np.prod(shape)) * dtype.itemsize
        arrays = [
            np.full(shape, 0.01, np.float32) if dtype is DType.FLOAT32 else np.full(shape, number, np.uint16)
            for _ in range(max(1, CACHED // size))
        ]
        return [(plain_matrix(address(array), shape, dtype), array) for array in arrays]
    rounding = QuantScheme.parse(scheme)
    shapes = packed_shapes(rounding, *shape)
    made = []
    for _ in range(max(1, CACHED // shapes.nbytes)):
        zeros = None if shapes.zeros is None else np.full(shapes.zeros, 120, np.uint8)
        data = generator.integers(0, 256, shapes.data, np.uint8)
        weight = PackedWeight(
            rounding, shape, data, np.full(shapes.scales, 0.01, rounding.scale_dtype), zeros
        )
        made.append((packed_matrix(weight), weight))
    return made


def measure(name: str, scheme: str, tokens: int, rounds: int, threads: int) -> dict[str, Any]:
    kernels, roofline = library(UNIT), library("roofline.cpp")
    for loaded in (kernels, roofline):
        loaded.glm3_set_threads(threads)
    copies = weights(name, scheme)
    out, inputs = SHAPES[name]
    x = np.random.default_rng(1).standard_normal((tokens, inputs)).astype(np.float32)
    y = np.empty((tokens, out), np.float32)
    bits = copies[0][1].scheme.bits if isinstance(copies[0][1], PackedWeight) else 8
    nbytes = sum(kept.nbytes for _, kept in copies)
    block = np.ones(1 << 27, np.float32)

    def product() -> None:
        for matrix, _ in copies:
            kernels.glm3_product(
                byref(matrix), c_void_p(address(x)), None, None, c_void_p(address(y)), c_int64(tokens)
            )

    def read() -> None:
        roofline.glm3_read(c_void_p(address(block)), c_int64(block.size))

    def multiply() -> int:
        return roofline.glm3_multiply(c_int64(300_000), bits, c_int64(tokens))

    roofline.glm3_multiply.restype = c_int64
    for warm in (product, read, multiply):
        warm()
    found = []
    for _ in range(rounds):
        bandwidth = block.nbytes / min(seconds(read), seconds(read))
        started = time.perf_counter()
        peak = multiply() / (time.perf_counter() - started)
        elapsed = seconds(product)
        operations = 2 * out * inputs * tokens * len(copies)
        found.append(
            {
                "ms": 1000 * elapsed / len(copies),
                "gb_per_s": nbytes / elapsed / 1e9,
                "of_read": nbytes / elapsed / bandwidth,
                "read_gb_per_s": bandwidth / 1e9,
                "gop_per_s": operations / elapsed / 1e9,
                "of_peak": operations / elapsed / peak,
                "peak_gop_per_s": peak / 1e9,
            }
        )
    medians = {key: statistics.median(each[key] for each in found) for key in found[0]}
    return {"weight": name, "scheme": scheme, "tokens": tokens, "threads": threads, **medians}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scheme", action="append", help="int4, int8-g32, float16, ...; default: int4, int8")
    parser.add_argument("--weight", action="append", choices=SHAPES, help="default: dense_h_to_4h")
    parser.add_argument("--tokens", action="append", type=int, help="default: 1, 8, 128")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--json", type=Path, help="write the results here too")
    arguments = parser.parse_args()
    results = []
    print("weight           scheme       tokens      ms    GB/s  of read   Gop/s  of peak")
    for scheme in arguments.scheme or ["int4", "int8"]:
        for name in arguments.weight or ["dense_h_to_4h"]:
            for tokens in arguments.tokens or [1, 8, 128]:
                result = measure(name, scheme, tokens, arguments.rounds, arguments.threads)
                results.append(result)
                print(
                    f"{name:<16} {scheme:<12} {tokens:6} {result['ms']:7.2f} {result['gb_per_s']:7.1f}"
                    f" {result['of_read']:8.2f} {result['gop_per_s']:7.0f} {result['of_peak']:8.2f}",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
