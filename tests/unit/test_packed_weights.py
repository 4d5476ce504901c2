"""Packed weights: the stored layout, exact round trips, and the error of rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.domain.errors import CheckpointError, ConfigError, InvalidInputError
from glm3.domain.quantization import (
    Levels,
    PackedWeight,
    QuantScheme,
    dequantize,
    pack,
    packed_shapes,
    quantize_rows,
    unpack,
)
from support.quantization import SCHEMES, rounded_weights

FEW = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_a_name_reads_back(scheme):
    assert QuantScheme.parse(scheme.name) == scheme


def test_short_names():
    assert QuantScheme.parse("int4") == QuantScheme(4, 32)
    assert QuantScheme.parse("int8") == QuantScheme(8)


@pytest.mark.parametrize(
    "name", ["", "int3", "int4-g33", "int8-g32-asym", "int4-channel-asym", "int4-g0", "q4"]
)
def test_another_name_is_refused(name):
    with pytest.raises(ConfigError):
        QuantScheme.parse(name)


def test_bits_of_the_schemes():
    assert QuantScheme(4, 32).bits_per_weight == 4.5
    assert QuantScheme(4, 128, symmetric=False).bits_per_weight == 4.1875
    assert packed_shapes(QuantScheme(4, 32), 4096, 4096).nbytes * 8 == 4.5 * 4096 * 4096


@FEW
@given(rounded_weights())
def test_packing_loses_nothing(drawn):
    scheme, rounded = drawn
    weight = pack(rounded, scheme)
    again = unpack(weight)
    assert np.array_equal(again.levels, rounded.levels)
    assert np.array_equal(again.scales, rounded.scales)
    assert again.zeros is rounded.zeros is None or np.array_equal(again.zeros, rounded.zeros)
    assert weight.nbytes == sum(a.nbytes for a in (weight.data, weight.scales, weight.zeros) if a is not None)


@FEW
@given(rounded_weights())
def test_a_packed_weight_stands_for_scaled_levels(drawn):
    scheme, rounded = drawn
    numbers = dequantize(pack(rounded, scheme))
    for row, column in np.ndindex(*rounded.levels.shape):
        group = 0 if scheme.group is None else column // scheme.group
        zero = scheme.middle if rounded.zeros is None else rounded.zeros[row, group] / 16
        expected = float(rounded.scales[row, group]) * (float(rounded.levels[row, column]) - zero)
        assert numbers[row, column] == pytest.approx(expected, rel=1e-6)


def test_the_place_of_every_byte():
    """Spelt out from the documentation of the layout, which files and kernels share."""
    generator = np.random.default_rng(0)
    for scheme in (QuantScheme(4, 32), QuantScheme(8, 32)):
        levels = generator.integers(0, scheme.levels, (32, 64), dtype=np.uint8)
        scales = generator.standard_normal((32, 2)).astype(np.float16)
        weight = pack(Levels(levels, scales), scheme)
        for row, column in np.ndindex(32, 64):
            block, lane = divmod(row, 16)
            if scheme.bits == 8:
                found = weight.data[block, 64 * (column // 4) + 4 * lane + column % 4]
            else:
                vector, place = divmod(column, 8)
                found = weight.data[block, 64 * vector + 4 * lane + place % 4] >> (4 * (place // 4)) & 15
            assert found == levels[row, column]
            assert weight.scales[block, column // 32, lane] == scales[row, column // 32]


def test_padding_stands_for_zero():
    weight = quantize_rows(np.ones((3, 40), np.float32), QuantScheme(8, 32))
    whole = PackedWeight(weight.scheme, (16, 64), weight.data, weight.scales)
    numbers = dequantize(whole)
    assert not numbers[3:].any()
    assert not numbers[:, 40:].any()


# The root mean square error over that of the weights, for normally distributed ones.
USUAL_ERRORS = {
    "int4-g32": 0.0811,
    "int4-g64": 0.0900,
    "int4-g128": 0.0970,
    "int4-g32-asym": 0.0712,
    "int4-g64-asym": 0.0826,
    "int4-g128-asym": 0.0921,
    "int8-g32": 0.0053,
    "int8-channel": 0.0075,
}


@pytest.mark.parametrize("name", USUAL_ERRORS)
def test_the_error_of_rounding(name):
    weights = np.random.default_rng(1).standard_normal((128, 512)).astype(np.float32)
    error = dequantize(quantize_rows(weights, QuantScheme.parse(name))) - weights
    assert np.sqrt(np.mean(error**2)) == pytest.approx(USUAL_ERRORS[name], rel=0.02)


@FEW
@given(st.integers(0, 2**32 - 1), st.sampled_from([32, 64, 128]), st.integers(-6, 1))
def test_no_scale_is_worse_than_the_one_that_covers_the_group(seed, group, exponent):
    """Whatever the numbers; a half-precision scale is off by up to 2^-11."""
    generator = np.random.default_rng(seed)
    weights = generator.standard_t(2, (16, group)).astype(np.float32) * np.float32(10.0**exponent)
    found = dequantize(quantize_rows(weights, QuantScheme(4, group))) - weights
    larger = np.where(-weights.min(1) >= weights.max(1), weights.min(1), weights.max(1))[:, None]
    covering = larger / np.float32(-8)
    covered = np.clip(np.rint(weights / covering), -8, 7) * covering - weights
    smallest_step = 2.0**-25 * np.sqrt(group) * 8  # of float16 scales, which are fixed-point when so small
    assert np.all(np.linalg.norm(found, axis=1) <= 1.002 * np.linalg.norm(covered, axis=1) + smallest_step)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_every_number_is_within_half_a_step(scheme):
    weights = np.random.default_rng(2).standard_normal((2000, 70)).astype(np.float32)
    weight = quantize_rows(weights, scheme)
    scales = np.abs(unpack(weight).scales.astype(np.float32)).repeat(scheme.group or 70, axis=1)[:, :70]
    steps = np.abs(dequantize(weight) - weights) / scales
    if scheme.bits == 4:  # the ends of the range may be cut off
        levels = unpack(weight).levels
        steps = steps[(levels > 0) & (levels < 15)]
    assert steps.max() < 0.501


def test_zeros_stay_zero():
    for scheme in SCHEMES:
        assert not dequantize(quantize_rows(np.zeros((5, 33), np.float16), scheme)).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("scheme", [QuantScheme(4, 32), QuantScheme(4, 32, False)], ids=lambda s: s.name)
def test_a_number_that_cannot_be_stored_is_named(bad, scheme):
    weights = np.ones((1100, 40), np.float32)
    weights[1029, 33] = bad
    with pytest.raises(InvalidInputError, match="channel 1029"):
        quantize_rows(weights, scheme)


@pytest.mark.parametrize("shape", [(4,), (0, 3), (2, 0), (2, 2, 2)])
def test_what_is_no_matrix_is_refused(shape):
    with pytest.raises(InvalidInputError, match="matrix"):
        quantize_rows(np.ones(shape, np.float32), QuantScheme(4, 32))


def test_arrays_of_another_weight_are_refused():
    weight = quantize_rows(np.ones((16, 64), np.float32), QuantScheme(4, 32))
    with pytest.raises(CheckpointError, match="data"):
        PackedWeight(weight.scheme, (17, 64), weight.data, weight.scales)
    with pytest.raises(CheckpointError, match="scales"):
        PackedWeight(weight.scheme, weight.shape, weight.data, weight.scales.astype(np.float32))
    with pytest.raises(CheckpointError, match="zeros"):
        PackedWeight(QuantScheme(4, 32, False), weight.shape, weight.data, weight.scales)
