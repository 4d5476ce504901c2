"""Products with an Arm processor's instructions, emulated, against float64 numpy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.domain.tensors import DType
from support.arm_core import build_arm_products
from support.products import check_packed_product, check_plain_product
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


@FEW
@given(rounded_weights(largest=600), SEEDS, st.integers(1, 20), st.booleans(), st.booleans())
def test_products_with_packed_weights(products, drawn, seed, tokens, biased, added):
    check_packed_product(products.packed, drawn, seed, tokens, biased=biased, added=added)


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
    check_plain_product(products.plain, seed, dtype, (out, width), tokens, added=added)
