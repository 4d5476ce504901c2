"""Products with an Arm processor's instructions, emulated, against float64 numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.domain.quantization import dequantize, pack
from glm3.domain.tensors import DType, from_float32
from support.arm_core import build_arm_products
from support.inference_core import numbers_of, product_oracle
from support.quantization import rounded_weights

pytestmark = pytest.mark.slow

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=40, deadline=None)
INSTRUCTIONS = {"armv8-a": "plain C++", "armv8.2-a+dotprod": "NEON dot product"}


@pytest.fixture(scope="module", params=INSTRUCTIONS)
def products(request, tmp_path_factory):
    products = build_arm_products(tmp_path_factory.mktemp("arm"), request.param)
    assert products.dot_name == INSTRUCTIONS[request.param]
    yield products
    products.close()


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def exactly_rounded(seed, tokens, width):
    """Return inputs whose rounding to eight bits in steps of 32 is exact."""
    generator = np.random.default_rng(seed)
    levels = generator.integers(-127, 128, (tokens, width)).astype(np.float32)
    levels[:, ::32] = 127
    return levels * np.float32(2.0**-5)


@FEW
@given(rounded_weights(largest=600), SEEDS, st.integers(1, 20), st.booleans(), st.booleans())
def test_products_with_packed_weights(products, drawn, seed, tokens, biased, added):
    scheme, rounded = drawn
    weight = pack(rounded, scheme)
    x = exactly_rounded(seed, tokens, weight.shape[1])
    bias = normal(seed, weight.shape[0]) if biased else None
    residual = normal(seed + 1, tokens, weight.shape[0]) if added else None
    numbers = dequantize(weight).astype(np.float64)
    expected = product_oracle(numbers, x, bias, residual)
    largest = np.abs(numbers) + np.abs(rounded.scales.astype(np.float64)).max() * scheme.levels
    scale = np.abs(x).astype(np.float64) @ largest.T + np.abs(expected)
    actual = products.packed(weight, x, bias, residual)
    assert (np.abs(actual - expected) <= 4e-6 * (scale + 1e-9)).all()


@FEW
@given(
    SEEDS,
    st.sampled_from([DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16]),
    st.integers(1, 80),
    st.integers(1, 300),
    st.integers(1, 20),
    st.booleans(),
)
def test_products_with_plain_weights(products, seed, dtype, out, width, tokens, added):
    carrier = from_float32(normal(seed, out, width), dtype)
    x, bias = normal(seed + 1, tokens, width), normal(seed + 2, out)
    residual = normal(seed + 3, tokens, out) if added else None
    numbers = numbers_of(carrier, dtype)
    expected = product_oracle(numbers, x, bias, residual)
    actual = products.plain(carrier, dtype, x, bias, residual)
    scale = np.abs(x) @ np.abs(numbers).T + np.abs(expected)
    assert (np.abs(actual - expected) <= 2e-6 * (scale + 1e-9)).all()
