"""Matrix products against float64 numpy, whoever computes them."""

from __future__ import annotations

import numpy as np

from glm3.domain.quantization import dequantize, pack
from glm3.domain.tensors import from_float32
from support.inference_core import numbers_of, product_oracle


def normal(seed, *shape, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def exactly_rounded(seed, tokens, width):
    """Return inputs whose rounding to eight bits in steps of 32 is exact, and the rounded numbers."""
    generator = np.random.default_rng(seed)
    levels = generator.integers(-127, 128, (tokens, width)).astype(np.float32)
    levels[:, ::32] = 127 * generator.choice([-1, 1], levels[:, ::32].shape)
    exponents = generator.integers(-6, 6, levels[:, ::32].shape).repeat(32, axis=1)[:, :width]
    return np.ldexp(levels, exponents)


def assert_close(actual, expected, scale, tolerance=2e-6):
    """Compare relative to ``scale``: the sum of the sizes of what was added up."""
    assert actual.shape == expected.shape
    assert (np.abs(actual - expected) <= tolerance * (scale + 1e-9)).all()


def to_bfloat16(numbers):
    """Round to the nearest bfloat16, ties away from zero."""
    bits = numbers.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def check_packed_product(product, drawn, seed, tokens, *, biased, added, in_bfloat16=False):
    """Rounded inputs times levels are exact in integers; only scaled sums round, and weights in bfloat16."""
    scheme, rounded = drawn
    weight = pack(rounded, scheme)
    x = exactly_rounded(seed, tokens, weight.shape[1])
    bias = normal(seed, weight.shape[0]) if biased else None
    residual = normal(seed + 1, tokens, weight.shape[0]) if added else None
    numbers = dequantize(weight).astype(np.float64)
    if in_bfloat16:
        numbers = to_bfloat16(numbers)
    expected = product_oracle(numbers, x, bias, residual)
    # A zero point is multiplied apart from the levels, so both sizes count.
    largest = np.abs(numbers) + np.abs(rounded.scales.astype(np.float64)).max() * scheme.levels
    scale = product_oracle(largest, np.abs(x), *_sizes(bias, residual))
    actual = product(weight, x, bias, residual)
    assert_close(actual, expected, scale, 4e-6)


def check_plain_product(product, seed, dtype, shape, tokens, *, added):
    out, width = shape
    carrier = from_float32(normal(seed, out, width), dtype)
    x, bias = normal(seed + 1, tokens, width), normal(seed + 2, out)
    residual = normal(seed + 3, tokens, out) if added else None
    numbers = numbers_of(carrier, dtype)
    expected = product_oracle(numbers, x, bias, residual)
    actual = product(carrier, dtype, x, bias, residual)
    assert_close(actual, expected, product_oracle(np.abs(numbers), np.abs(x), *_sizes(bias, residual)))


def _sizes(*terms):
    return [None if term is None else np.abs(term) for term in terms]
