"""The inference kernels, called without MindSpore, against float64 numpy, for every kind of processor that
this machine can be or emulate.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.domain.quantization import QuantScheme, dequantize, pack, quantize_rows
from glm3.domain.tensors import DType, from_float32, to_float32
from support.arm_core import ARCHITECTURES
from support.inference_core import (
    InferenceCore,
    LayerStore,
    Matrix,
    numbers_of,
    packed_matrix,
    plain_matrix,
)
from support.libraries import BUILDS, library
from support.products import check_packed_product, check_plain_product, exactly_rounded, normal
from support.quantization import SCHEMES, random_levels, rounded_weights

SEEDS = st.integers(0, 2**32 - 1)
FLOATING = (DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16)
FEW = settings(max_examples=40, deadline=None)


@pytest.fixture(scope="module", params=BUILDS)
def core(request):
    return InferenceCore(request.param)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "name"), ARCHITECTURES.items())
def test_emulated_kernels_use_the_instructions_they_are_compiled_for(architecture, name):
    assert library(architecture).dot_name == name


@FEW
@given(rounded_weights(largest=1100), SEEDS, st.integers(1, 70), st.booleans(), st.booleans())
def test_products_with_packed_weights(core, drawn, seed, tokens, biased, added):
    check_packed_product(
        lambda weight, *rest: core.product(packed_matrix(weight), *rest),
        drawn,
        seed,
        tokens,
        biased=biased,
        added=added,
        in_bfloat16=core.in_bfloat16(tokens),
    )


@FEW
@given(
    SEEDS,
    st.sampled_from(FLOATING),
    st.integers(1, 140),
    st.integers(1, 530),
    st.integers(1, 20),
    st.booleans(),
)
def test_products_with_plain_weights(core, seed, dtype, out, width, tokens, added):
    def product(carrier, dtype, *rest):
        return core.product(plain_matrix(carrier, dtype), *rest)

    check_plain_product(product, seed, dtype, (out, width), tokens, added=added)


@FEW
@given(SEEDS, st.sampled_from(SCHEMES), st.sampled_from(FLOATING), st.integers(1, 40), st.integers(1, 300))
def test_rounding_is_the_reference_to_the_bit(core, seed, scheme, dtype, out, width):
    carrier = from_float32(normal(seed, out, width, scale=10.0 ** (seed % 7 - 3)), dtype)
    carrier[seed % out, : width // 2] = 0
    expected = quantize_rows(to_float32(carrier, dtype), scheme)
    actual = core.quantize(plain_matrix(carrier, dtype), scheme)
    for name in ("data", "scales", "zeros"):
        found, wanted = getattr(actual, name), getattr(expected, name)
        assert found is wanted is None or np.array_equal(found, wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_channel_that_cannot_be_rounded_is_named(core, bad):
    weights = normal(0, 400, 64)
    weights[[77, 310, 399], 63] = bad
    with pytest.raises(ValueError, match="channel 77"):
        core.quantize(plain_matrix(weights, DType.FLOAT32), QuantScheme(4, 32))


@pytest.mark.parametrize("tokens", [1, 3, 11, 30])
def test_a_product_may_be_added_to_where_it_is_written(core, tokens):
    weight = pack(random_levels(1, QuantScheme(4, 32), 40, 64), QuantScheme(4, 32))
    x, y = exactly_rounded(2, tokens, 64), normal(3, tokens, 40)
    expected = core.product(packed_matrix(weight), x, residual=y.copy())
    assert np.array_equal(core.product(packed_matrix(weight), x, residual=y, y=y), expected)


@FEW
@given(SEEDS, st.sampled_from(FLOATING), st.integers(1, 140), st.integers(1, 530), st.integers(2, 8))
def test_few_tokens_score_with_plain_weights_as_each_alone(core, seed, dtype, out, width, tokens):
    """To the bit: this is what lets several guessed tokens be checked in one pass."""
    carrier = from_float32(normal(seed, out, width), dtype)
    x = normal(seed + 1, tokens, width)
    together = core.product(plain_matrix(carrier, dtype), x)
    for token in range(tokens):
        assert np.array_equal(
            core.product(plain_matrix(carrier, dtype), x[token : token + 1])[0], together[token]
        )


@FEW
@given(rounded_weights(largest=1100), SEEDS, st.integers(2, 40))
def test_tokens_score_with_packed_weights_as_beside_others(core, drawn, seed, tokens):
    """To the bit: rounding goes by the token, sums by the input. Alone, unless so many go in bfloat16."""
    scheme, rounded = drawn
    weight = pack(rounded, scheme)
    x = normal(seed, tokens, weight.shape[1])
    together = core.product(packed_matrix(weight), x)
    others = normal(seed + 1, core.bfloat16_tokens - 1 if core.in_bfloat16(tokens) else 0, weight.shape[1])
    for token in range(tokens):
        apart = core.product(packed_matrix(weight), np.concatenate([others, x[token : token + 1]]))[-1]
        assert np.array_equal(apart, together[token])


def test_more_tokens_than_are_multiplied_at_once(core):
    """A second pass over the weights, and the last tile alone."""
    weight = pack(random_levels(1, QuantScheme(4, 32), 40, 96), QuantScheme(4, 32))
    x = normal(2, 531, 96)
    together = core.product(packed_matrix(weight), x)
    for first in (0, 500):
        apart = core.product(packed_matrix(weight), x[first : first + 30])
        assert np.array_equal(apart, together[first : first + 30])


@pytest.mark.parametrize("nan", [0x7E00, 0x7FFF, 0xFFFF])
def test_scales_that_are_not_numbers_stay_visible(core, nan):
    weight = pack(random_levels(1, QuantScheme(4, 32), 20, 64), QuantScheme(4, 32))
    weight.scales.view(np.uint16)[...] = nan
    for tokens in (1, 9, 30):
        assert np.isnan(core.product(packed_matrix(weight), normal(2, tokens, 64))).all()


@FEW
@given(SEEDS, st.integers(1, 3), st.integers(1, 200))
def test_inputs_are_rounded_to_within_half_a_step(core, seed, tokens, width):
    """Against an identity of levels 127: what comes out is what the inputs were rounded to."""
    scheme = QuantScheme(8)
    levels = np.full((width, width), 128, np.uint8)
    np.fill_diagonal(levels, 255)
    weight = pack(
        type(random_levels(0, scheme, 1, 1))(levels, np.full((width, 1), 1 / 127, np.float32)), scheme
    )
    x = normal(seed, tokens, width, scale=10.0 ** np.random.default_rng(seed).integers(-20, 20))
    y = core.product(packed_matrix(weight), x)
    steps = np.pad(np.abs(x), [(0, 0), (0, -width % 32)]).reshape(tokens, -1, 32).max(-1) / 127
    assert (np.abs(y - x) <= 0.5001 * steps.repeat(32, axis=1)[:, :width]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tokens", [1, 2, 9, 30])
def test_inputs_that_are_not_finite_stay_visible(core, bad, tokens):
    weight = pack(random_levels(1, QuantScheme(4, 64), 20, 100), QuantScheme(4, 64))
    x = normal(2, tokens, 100)
    x[tokens - 1, 77] = bad
    y = core.product(packed_matrix(weight), x)
    assert np.isnan(y[-1]).all()
    assert np.isfinite(y[:-1]).all()


@pytest.mark.parametrize("size", [0.0, -0.0, 1e-45, 1e-38, 1e30])
def test_inputs_of_any_size_give_numbers(core, size):
    weight = pack(random_levels(1, QuantScheme(8, 32), 20, 64), QuantScheme(8, 32))
    y = core.product(packed_matrix(weight), np.full((2, 64), size, np.float32))
    assert not np.isnan(y).any()
    assert abs(size) > 1e-37 or np.abs(y).max() < 1e-30


@FEW
@given(rounded_weights(), SEEDS)
def test_rows_of_packed_tables(core, drawn, seed):
    scheme, rounded = drawn
    weight = pack(rounded, scheme)
    ids = np.random.default_rng(seed).integers(0, weight.shape[0], 5)
    np.testing.assert_allclose(core.take_rows(packed_matrix(weight), ids), dequantize(weight)[ids], rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATING)
def test_rows_of_plain_tables(core, dtype):
    carrier = from_float32(normal(3, 7, 37), dtype)
    ids = [6, 0, 6, 3]
    assert np.array_equal(core.take_rows(plain_matrix(carrier, dtype), ids), numbers_of(carrier, dtype)[ids])


@pytest.mark.parametrize("bad", [-1, 7])
def test_a_row_that_is_not_there_is_refused(core, bad):
    with pytest.raises(ValueError, match="refused"):
        core.take_rows(plain_matrix(normal(3, 7, 37), DType.FLOAT32), [0, bad])


@pytest.mark.parametrize(
    "changes",
    [
        {"out": 0},
        {"inputs": -1},
        {"storage": 5},
        {"storage": -1},
        {"group": 33},
        {"data": None},
        {"scales": None},
    ],
)
def test_a_matrix_that_cannot_be_is_refused(core, changes):
    weight = pack(random_levels(1, QuantScheme(4, 32), 20, 64), QuantScheme(4, 32))
    matrix = packed_matrix(weight)
    for name, value in changes.items():
        setattr(matrix, name, value)
    with pytest.raises(ValueError, match="refused"):
        core.product(matrix, normal(1, 1, 64))
    assert isinstance(matrix, Matrix)


def test_every_half_widens_exactly(core):
    every = np.arange(2**16, dtype=np.uint16)
    halves = every.view(np.float16)
    np.testing.assert_array_equal(core.widen(halves, DType.FLOAT16), halves.astype(np.float32))
    np.testing.assert_array_equal(
        core.widen(every, DType.BFLOAT16), (every.astype(np.uint32) << 16).view(np.float32)
    )


@FEW
@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_numbers_narrow_as_numpy_narrows_them(core, values):
    x = np.array(values, np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(core.narrow(x), x.astype(np.float16))


def test_edges_of_narrowing(core):
    edges = np.array(
        [65504, 65519.996, 65520, 6.1e-5, 5.96e-8, 2.98e-8, 2.99e-8, 1.0004883, 1.0014648], np.float32
    )
    x = np.concatenate([edges, -edges, np.geomspace(1e-9, 1e6, 9973, dtype=np.float32)])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(core.narrow(x), x.astype(np.float16))


TOLERANCES = {"fp32": 2e-6, "fp16": 2e-3, "int8": 3e-2}


BLOCK_SIZES = st.one_of(st.sampled_from([1, 16, 64, 128]), st.integers(2, 300))


@st.composite
def attention_cases(draw):
    kv, group = draw(st.sampled_from([(1, 1), (1, 3), (2, 1), (2, 16), (1, 70), (3, 5)]))
    lengths = st.one_of(st.integers(1, 5), st.integers(1, 140))
    spans = draw(st.lists(st.tuples(st.integers(0, 130), lengths), min_size=1, max_size=3))
    formats = st.sampled_from(list(TOLERANCES))
    return kv, group, 4 * draw(st.integers(1, 18)), spans, draw(formats), draw(BLOCK_SIZES)


def random_tables(seed, size, lengths):
    """Return tables for sequences of these lengths, and how many blocks there are, two more than needed."""
    counts = [-(-length // size) for length in lengths]
    blocks = list(map(int, np.random.default_rng(seed).permutation(sum(counts) + 2)))
    return [[blocks.pop() for _ in range(count)] for count in counts], sum(counts) + 2


def rotated(x, cos, sin):
    """Rotate the leading pairs of heads ``x (tokens, heads, dim)``."""
    turned, half = x.copy(), cos.shape[1]
    even, odd = x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2]
    turned[..., 0 : 2 * half : 2] = even * cos[:, None] - odd * sin[:, None]
    turned[..., 1 : 2 * half : 2] = odd * cos[:, None] + even * sin[:, None]
    return turned


def attention_oracle(queries, keys, values, starts):
    """Attend causally: queries ``(tokens, heads, dim)`` at ``starts``; keys ``(positions, kv, dim)``."""
    group = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat(group, axis=1), values.repeat(group, axis=1)
    scores = np.einsum("thd,phd->thp", queries, keys) / np.sqrt(queries.shape[2])
    scores[(np.arange(len(keys)) > starts[:, None])[:, None].repeat(scores.shape[1], axis=1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("thp,phd->thd", weights / weights.sum(-1, keepdims=True), values)


@settings(max_examples=25, deadline=None)
@given(SEEDS, attention_cases())
def test_attention_over_the_cache(core, seed, case):
    """Sequences of any length, in one pass over blocks of any size that lie anywhere in the pool: what is
    written, what is left alone, and what is read.
    """
    kv, group, dim, drawn, format_, size = case
    heads, most = kv * group, max(start + length for start, length in drawn)
    tables, blocks = random_tables(seed, size, [start + length for start, length in drawn])
    store = LayerStore(format_, blocks, size, kv, dim)
    past = normal(seed, len(drawn), 2, most, kv, dim)
    tokens = sum(length for _, length in drawn)
    spans, offset = [], 0
    angles = normal(seed + 1, tokens, dim // 4, scale=3.0)
    cos, sin = np.cos(angles), np.sin(angles)
    for index, (start, length) in enumerate(drawn):
        spans.append(store.span(tables[index], offset, start, length))
        held = store.slots(tables[index], start)
        for numbers, scales, filler in zip(store.flat, store.flat_scales, past[index], strict=True):
            if scales is None:
                numbers[held] = filler[:start]
            else:
                scales[held] = np.abs(filler[:start]).max(-1) / 127
                numbers[held] = np.rint(filler[:start] / scales[held, :, None])
        offset += length
    qkv = normal(seed + 2, tokens, (heads + 2 * kv) * dim)
    before = [array.copy() for array in store.flat]
    out = core.cached_attention(store, heads, cos, sin, qkv, spans)
    stored = store.widened()
    tolerance = TOLERANCES[format_]
    untouched = np.ones(len(before[0]), bool)
    for span, table in zip(spans, tables, strict=True):
        new, ends = slice(span.offset, span.offset + span.length), span.start + span.length
        parts = qkv[new].astype(np.float64).reshape(span.length, heads + 2 * kv, dim)
        turned = rotated(parts[:, : heads + kv], cos[new].astype(np.float64), sin[new].astype(np.float64))
        slots = store.slots(table, ends)
        untouched[slots[span.start :]] = False
        for actual, expected in zip(stored, (turned[:, heads:], parts[:, heads + kv :]), strict=True):
            written = actual[slots[span.start :]]
            assert np.abs(written - expected).max() <= tolerance * np.abs(expected).max()
        keys, values = (array[slots] for array in stored)
        positions = np.arange(span.start, ends)
        expected = attention_oracle(turned[:, :heads], keys, values, positions).reshape(span.length, -1)
        assert np.abs(out[new] - expected).max() <= 1e-5 * np.abs(values).max()
    for old, new_numbers in zip(before, store.flat, strict=True):
        assert np.array_equal(old[untouched], new_numbers[untouched])


@settings(max_examples=25, deadline=None)
@given(
    SEEDS,
    st.sampled_from([(1, 1), (1, 3), (2, 16), (1, 70)]),
    st.integers(1, 18),
    st.integers(0, 130),
    st.integers(2, 8),
    st.sampled_from(list(TOLERANCES)),
)
def test_tokens_attend_together_as_each_alone(core, seed, heads, quarter, start, tokens, format_):
    """To the bit, whatever of the others' keys is already in the cache."""
    (kv, group), dim = heads, 4 * quarter
    angles = normal(seed, tokens, dim // 4, scale=3.0)
    cos, sin = np.cos(angles), np.sin(angles)
    past = normal(seed + 1, start, (kv * group + 2 * kv) * dim)
    qkv = normal(seed + 2, tokens, (kv * group + 2 * kv) * dim)
    stores = [LayerStore(format_, 1, start + tokens, kv, dim) for _ in range(2)]
    for store in stores:
        if start:
            still = np.ones((start, dim // 4), np.float32), np.zeros((start, dim // 4), np.float32)
            core.cached_attention(store, kv * group, *still, past, [store.span([0], 0, 0, start)])
    span = stores[0].span([0], 0, start, tokens)
    together = core.cached_attention(stores[0], kv * group, cos, sin, qkv, [span])
    for token in range(tokens):
        one = slice(token, token + 1)
        span = [stores[1].span([0], 0, start + token, 1)]
        alone = core.cached_attention(stores[1], kv * group, cos[one], sin[one], qkv[one], span)
        assert np.array_equal(alone[0], together[token])


@settings(max_examples=25, deadline=None)
@given(SEEDS, attention_cases())
def test_attention_does_not_depend_on_how_the_cache_is_cut(core, seed, case):
    """To the bit: blocks of any size, anywhere, give what one block for each sequence gives."""
    kv, group, dim, drawn, format_, size = case
    heads, lengths = kv * group, [start + length for start, length in drawn]
    tables, blocks = random_tables(seed, size, lengths)
    whole = LayerStore(format_, len(drawn), max(lengths), kv, dim)
    cut = LayerStore(format_, blocks, size, kv, dim)
    for passes in ([(0, start) for start, _ in drawn], drawn):
        tokens = sum(length for _, length in passes)
        if not tokens:
            continue
        angles = normal(seed + 1, tokens, dim // 4, scale=3.0)
        qkv = normal(seed + 2, tokens, (heads + 2 * kv) * dim)
        offsets = np.cumsum([0, *(length for _, length in passes)])
        found = [
            core.cached_attention(
                store,
                heads,
                np.cos(angles),
                np.sin(angles),
                qkv,
                [
                    store.span(table, offset, start, length)
                    for table, offset, (start, length) in zip(of_store, offsets, passes, strict=False)
                    if length
                ],
            )
            for store, of_store in ((whole, [[i] for i in range(len(drawn))]), (cut, tables))
        ]
        assert np.array_equal(*found)


@pytest.mark.parametrize(
    ("table", "start", "length"),
    [([0, 1], 6, 3), ([], 0, 1), ([0, 5], 0, 5), ([-1], 0, 1), ([0, 1], -1, 2), ([0, 1], 0, 0)],
    ids=["too short a table", "no table", "no such block", "block below 0", "before the start", "nothing"],
)
def test_tokens_without_a_place_in_the_pool_are_refused(core, table, start, length):
    store = LayerStore("fp32", 5, 4, 1, 8)
    tables = np.ones((4, 2), np.float32)
    with pytest.raises(ValueError, match="refused"):
        core.cached_attention(
            store, 2, tables, tables, normal(0, 4, 32), [store.span(table, 0, start, length)]
        )


def test_a_query_that_is_not_a_number_spoils_itself_alone(core):
    store = LayerStore("fp32", 1, 10, 1, 8)
    qkv = normal(0, 6, (2 + 2) * 8)
    qkv[3, 0] = np.nan
    tables = np.ones((6, 2), np.float32)
    out = core.cached_attention(store, 2, tables, tables * 0, qkv, [store.span([0], 0, 0, 6)])
    assert np.isnan(out[3, :8]).all()
    assert np.isfinite(np.delete(out, 3, axis=0)).all()
    assert np.isfinite(out[3, 8:]).all()
