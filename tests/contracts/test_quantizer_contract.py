"""What every adapter of the rounding port does: what the reference does, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.memory.numpy_quantizer import NumpyQuantizer
from glm3.adapters.mindspore.quantizer import NativeQuantizer
from glm3.domain.errors import InvalidInputError
from glm3.domain.quantization import QuantScheme, quantize_rows
from glm3.domain.tensors import DType, from_float32, to_float32
from glm3.entrypoints.paths import cache_folder
from support.native import kernel_build


def native():
    kernel_build()  # skips where no compiler is
    return NativeQuantizer(cache_folder() / "kernels")


ADAPTERS = {NumpyQuantizer: NumpyQuantizer, NativeQuantizer: native}


@pytest.fixture(scope="module", params=ADAPTERS, ids=lambda adapter: adapter.__name__)
def quantizer(request):
    return ADAPTERS[request.param]()


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64])
@pytest.mark.parametrize("scheme", ["int4", "int4-channel", "int4-g64-asym", "int8"])
def test_the_result_is_the_reference(quantizer, dtype, scheme):
    weights = np.random.default_rng(7).standard_normal((40, 192)).astype(np.float32)
    array = from_float32(weights, dtype)
    found = quantizer.quantize(array, dtype, QuantScheme.parse(scheme), "w")
    wanted = quantize_rows(to_float32(array, dtype), QuantScheme.parse(scheme))
    for name in ("data", "scales", "zeros"):
        actual, expected = getattr(found, name), getattr(wanted, name)
        assert actual is expected is None or np.array_equal(actual, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(quantizer, bad):
    weights = np.ones((40, 64), np.float32)
    weights[33, 5] = bad
    with pytest.raises(InvalidInputError, match=r"a\.weight, output channel 33"):
        quantizer.quantize(weights, DType.FLOAT32, QuantScheme(4, 32), "a.weight")


def test_what_is_no_matrix_is_refused(quantizer):
    with pytest.raises(InvalidInputError, match="matrix"):
        quantizer.quantize(np.ones(64, np.float32), DType.FLOAT32, QuantScheme(4, 32), "a.bias")
