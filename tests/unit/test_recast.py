"""Changing the dtype of stored numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import InvalidInputError
from glm3.domain.recast import recast
from glm3.domain.tensors import DType, from_float32, to_float32

FLOATING = [dtype for dtype in DType if dtype.is_floating]


@pytest.mark.parametrize("dtype", FLOATING)
def test_the_same_dtype_keeps_the_very_array(dtype):
    array = np.zeros(3, dtype.carrier)
    assert recast(array, dtype, dtype, "w") is array


@pytest.mark.parametrize("narrow", [DType.FLOAT16, DType.BFLOAT16])
def test_widening_and_narrowing_again_keeps_every_bit_pattern(narrow):
    """All 65,536 patterns but signalling NaN, whose payload may change."""
    every = np.arange(1 << 16, dtype=np.uint16).view(narrow.carrier)
    back = recast(recast(every, narrow, DType.FLOAT32, "w"), DType.FLOAT32, narrow, "w")
    is_nan = np.isnan(to_float32(every, narrow))
    assert (back.view(np.uint16)[~is_nan] == every.view(np.uint16)[~is_nan]).all()
    assert np.isnan(to_float32(back, narrow)[is_nan]).all()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bfloat16_is_the_nearest(number):
    array = np.array([number], np.float32)
    bits = int(array.view(np.uint32)[0])
    try:
        got = recast(array, DType.FLOAT32, DType.BFLOAT16, "w")
    except InvalidInputError:
        assert abs(number) > 3.38e38
        return
    low = np.array([bits & 0xFFFF0000], np.uint32).view(np.float32)[0]
    high = np.array([min((bits & 0xFFFF0000) + 0x10000, 0xFFFFFFFF)], np.uint32).view(np.float32)[0]
    value = float(to_float32(got, DType.BFLOAT16)[0])
    assert abs(value - number) <= min(abs(float(low) - number), abs(float(high) - number))


@pytest.mark.parametrize(
    ("source", "target", "value"),
    [
        (DType.FLOAT32, DType.FLOAT16, 65520.0),
        (DType.BFLOAT16, DType.FLOAT16, 1e30),
        (DType.FLOAT32, DType.BFLOAT16, 3.4e38),
        (DType.FLOAT64, DType.FLOAT32, 1e39),
    ],
)
def test_a_number_too_large_is_refused_by_name(source, target, value):
    array = (
        np.array([1.0, value])
        if source is DType.FLOAT64
        else from_float32(np.array([1.0, value], np.float32), source)
    )
    with pytest.raises(InvalidInputError, match=f"layers.0.weight: 1 numbers do not fit {target}"):
        recast(array, source, target, "layers.0.weight")


@pytest.mark.parametrize("target", [DType.FLOAT16, DType.BFLOAT16])
def test_what_is_infinite_or_nan_already_passes(target):
    array = np.array([np.inf, -np.inf, np.nan], np.float32)
    got = to_float32(recast(array, DType.FLOAT32, target, "w"), target)
    assert np.array_equal(got, array, equal_nan=True)
