"""The native kernels, called without MindSpore, against float64 numpy, for every kind of processor that this
machine can be or emulate.

Every call also checks that nothing beside its outputs is written.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import oracles
from support.libraries import BUILDS
from support.native import AttentionShape, NativeCore

SEEDS = st.integers(0, 2**32 - 1)
ROWS = st.integers(1, 70)
WIDTHS = st.integers(1, 150)
FEW = settings(max_examples=40, deadline=None)


@pytest.fixture(scope="module", params=BUILDS)
def core(request):
    return NativeCore(request.param)


def draw(seed, *shapes, scale=1.0):
    generator = np.random.default_rng(seed)
    return [(scale * generator.standard_normal(shape)).astype(np.float32) for shape in shapes]


def assert_close(actual, expected, tolerance=2e-6, scale=None):
    """Compare relative to ``scale``, the largest number summed, or else the largest expected number."""
    assert actual.shape == expected.shape
    if scale is None:
        scale = max(1e-3, np.abs(expected).max())
    assert np.abs(actual - expected).max() <= tolerance * scale


def double(*arrays):
    return [array.astype(np.float64) for array in arrays]


def test_exp_is_accurate_over_its_range(core):
    x = np.linspace(-87, 88, 100_003, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.abs(core.exp(x) / exact - 1).max() < 1.4 * 2**-23


def test_exp_of_the_extremes(core):
    x = np.array([-np.inf, -1e30, -88, 0, -0.0, 1e30, np.inf, np.nan], np.float32)
    y = core.exp(x)
    assert (y[:3] == 0).all()
    assert (y[3:5] == 1).all()
    assert (y[5:7] > 1e38).all()
    assert np.isnan(y[7])


@FEW
@given(SEEDS, ROWS, WIDTHS)
def test_bias_add(core, seed, rows, width):
    x, bias, dy = draw(seed, (rows, width), width, (rows, width))
    assert np.array_equal(core.bias_add(x, bias), x + bias)
    assert_close(core.bias_backward(dy), dy.astype(np.float64).sum(0), scale=np.abs(dy).max())


@FEW
@given(SEEDS, ROWS, WIDTHS, st.sampled_from([1e-5, 1e-2]))
def test_rms_norm(core, seed, rows, width, epsilon):
    x, weight, dy = draw(seed, (rows, width), width, (rows, width))
    y, rms = core.rms_norm(x, weight, epsilon)
    assert_close(y, oracles.rms_norm(*double(x, weight), epsilon))
    expected_dx, expected_dweight = oracles.rms_norm_gradient(*double(dy, x, weight), epsilon)
    dx, dweight = core.rms_norm_backward(dy, x, weight, rms)
    assert_close(dx, expected_dx, scale=np.abs(dy * weight * rms[:, None]).max())  # its two terms may cancel
    assert_close(dweight, expected_dweight, scale=np.abs(dy * x * rms[:, None]).max())


@FEW
@given(SEEDS, ROWS, WIDTHS, st.sampled_from([0.1, 1.0, 30.0]))
def test_swiglu(core, seed, rows, width, scale):
    h, dy = draw(seed, (rows, 2 * width), (rows, width), scale=scale)
    assert_close(core.swiglu(h), oracles.swiglu(h.astype(np.float64)))
    assert_close(core.swiglu_backward(dy, h), oracles.swiglu_gradient(*double(dy, h)))


@FEW
@given(SEEDS, st.integers(1, 40_000), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 0.9]))
def test_dropout(core, seed, size, key, rate):
    (x,) = draw(seed, size)
    kept = oracles.dropout_hash(size, key) >= np.float32(rate * 2**24)
    scale = np.float32(1 / (1 - rate))
    np.testing.assert_array_equal(core.dropout(x, key, rate * 2**24, scale), np.where(kept, x * scale, 0))


def test_dropout_does_not_hide_overflow(core):
    x = np.full(1000, np.inf, np.float32)
    assert not np.isfinite(core.dropout(x, 1, 0.5 * 2**24, 2.0)).any()


@st.composite
def attention_shapes(draw):
    kv, group = draw(st.sampled_from([(1, 1), (1, 3), (2, 1), (2, 2), (3, 1), (4, 1)]))
    head_dim = 4 * draw(st.integers(1, 18))
    # Around the edges of the tiles, 32 queries and 64 keys, and anywhere.
    seq = draw(st.one_of(st.sampled_from([1, 31, 32, 33, 63, 64, 65, 128, 129]), st.integers(1, 150)))
    return AttentionShape(draw(st.integers(1, 3)), seq, kv * group, kv, head_dim, head_dim // 2)


def attention_problem(seed, shape, scale=1.0):
    rows, half = shape.batch * shape.seq, shape.rotary_dim // 2
    qkv, dout = draw(seed, (rows, shape.qkv_width), (rows, shape.num_heads * shape.head_dim), scale=scale)
    (angles,) = draw(seed + 1, (shape.seq, half), scale=3.0)
    return qkv, dout, np.cos(angles), np.sin(angles)


@settings(max_examples=60, deadline=None)
@given(SEEDS, attention_shapes(), st.sampled_from([0.3, 1.0, 4.0]))
def test_attention(core, seed, shape, scale):
    """Output, saved sums and gradient; 4.0 gives scores up to a hundred, a nearly one-hot softmax."""
    qkv, dout, cos, sin = attention_problem(seed, shape, scale)
    out, lse = core.attention(shape, cos, sin, qkv)
    oracle = oracles.Attention(*double(qkv, cos, sin), shape)
    assert_close(out, oracle.out, 2e-5)
    # A score is a sum of products, which may cancel.
    assert_close(lse, oracle.lse, 2e-6, scale=max(np.abs(oracle.lse).max(), np.abs(qkv).max() ** 2))
    assert_close(
        core.attention_backward(shape, cos, sin, dout, qkv, out, lse),
        oracle.gradient(dout.astype(np.float64)),
        5e-5,
    )


def test_attention_is_causal(core):
    """A later token changes nothing before it, to the bit."""
    shape = AttentionShape(1, 100, 4, 2, 16, 8)
    qkv, _, cos, sin = attention_problem(3, shape)
    before, _ = core.attention(shape, cos, sin, qkv)
    qkv[70:] *= 5
    after, _ = core.attention(shape, cos, sin, qkv)
    assert np.array_equal(before[:70], after[:70])
    assert not np.array_equal(before[70:], after[70:])


@pytest.mark.parametrize(
    "shape",
    [(0, 4, 2, 1, 8, 4), (1, 0, 2, 1, 8, 4), (1, 4, 3, 2, 8, 4), (1, 4, 2, 0, 8, 4), (1, 4, 2, 1, 8, 10)],
)
def test_an_impossible_attention_shape_is_refused(core, shape):
    room = np.zeros((64, 64), np.float32)
    with pytest.raises(ValueError, match="attention"):
        core.attention(AttentionShape(*shape), room, room, room)


@FEW
@given(SEEDS, ROWS, st.one_of(WIDTHS, st.integers(1000, 2100)), st.sampled_from([1.0, 20.0]))
def test_cross_entropy(core, seed, rows, vocab, scale):
    (logits,) = draw(seed, (rows, vocab), scale=scale)
    labels = np.random.default_rng(seed).integers(0, vocab, rows).astype(np.int32)
    labels[::3] = -100
    loss, row_sums = core.cross_entropy(logits, labels)
    expected, gradient = oracles.cross_entropy(logits.astype(np.float64), labels)
    assert loss == pytest.approx(expected, rel=2e-6, abs=2e-7)
    for upstream in (1.0, 65536.0):
        actual = core.cross_entropy_backward(upstream, logits, labels, row_sums)
        assert_close(actual, upstream * gradient, 5e-6, scale=upstream / max(1, (labels != -100).sum()))


def test_no_counted_label_gives_zero_loss_and_gradient(core):
    (logits,) = draw(0, (3, 9))
    labels = np.full(3, -100, np.int32)
    loss, row_sums = core.cross_entropy(logits, labels)
    assert loss == 0
    assert not core.cross_entropy_backward(1.0, logits, labels, row_sums).any()


@pytest.mark.parametrize("label", [9, -1, -101, 2**31 - 1])
def test_a_label_outside_the_vocabulary_is_refused(core, label):
    (logits,) = draw(0, (2, 9))
    labels = np.array([3, label], np.int32)
    with pytest.raises(ValueError, match="cross_entropy"):
        core.cross_entropy(logits, labels)
    with pytest.raises(ValueError, match="cross_entropy_backward"):
        core.cross_entropy_backward(1.0, logits, labels, np.zeros((2, 2), np.float32))


def adamw_settings(*, lr, beta1, beta2, epsilon, decay, step, corrected, scale=1.0, apply=1.0):
    corrections = (1 / (1 - beta1**step), 1 / (1 - beta2**step)) if corrected else (1, 1)
    numbers = [lr, beta1, beta2, epsilon, decay, 1 - beta1, 1 - beta2, *corrections, scale, apply]
    return np.array(numbers, np.float32)


@FEW
@given(SEEDS, st.integers(1, 5000), st.booleans(), st.sampled_from([(0.9, 0.95), (0.9, 0.999)]))
def test_adamw(core, seed, size, corrected, betas):
    """Three steps with and without bias correction, the gradient halved on the way in."""
    rule = {"lr": 1e-2, "beta1": betas[0], "beta2": betas[1], "epsilon": 1e-8, "decay": 0.1}
    (parameter,) = draw(seed, size)
    state = [parameter, np.zeros_like(parameter), np.zeros_like(parameter)]
    expected = double(*state)
    for step in (1, 2, 3):
        (gradient,) = draw(seed + step, size)
        numbers = adamw_settings(**rule, step=step, corrected=corrected, scale=0.5)
        state = core.adamw(*state, gradient, numbers)
        expected = oracles.adamw(
            *expected, 0.5 * gradient.astype(np.float64), **rule, step=step, corrected=corrected
        )
    for actual, exact in zip(state, expected, strict=True):
        np.testing.assert_allclose(actual, exact, rtol=2e-6, atol=1e-7)


def test_a_skipped_step_changes_no_bit(core):
    parameter, m, v = draw(5, 100, 100, 100)
    gradient = np.full(100, np.nan, np.float32)
    numbers = adamw_settings(
        lr=1, beta1=0.9, beta2=0.9, epsilon=1e-8, decay=1, step=1, corrected=True, apply=0.0
    )
    for before, after in zip((parameter, m, v), core.adamw(parameter, m, v, gradient, numbers), strict=True):
        assert np.array_equal(before, after)


@FEW
@given(SEEDS, st.integers(1, 100_000), st.sampled_from([1.0, 1e-20, 1e30]))
def test_sum_of_squares(core, seed, size, scale):
    """Also where float32 squares would vanish or overflow."""
    (x,) = draw(seed, size, scale=scale)
    assert core.sum_of_squares(x) == pytest.approx((x.astype(np.float64) ** 2).sum(), rel=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
class TestNonFiniteNumbersStayVisible:
    def test_in_sums_of_squares(self, core, bad):
        for position in (0, 33_000, 40_002):
            (x,) = draw(1, 40_003)
            x[position] = bad
            assert not np.isfinite(core.sum_of_squares(x))

    def test_in_norm_bias_and_gate(self, core, bad):
        x, weight = draw(2, (3, 40), 40)
        x[1, 37] = bad
        assert np.isnan(core.rms_norm(x, weight, 1e-5)[0][1]).any()
        assert not np.isfinite(core.bias_backward(x)[37])
        assert not np.isfinite(core.swiglu(x)[1]).all()
        assert np.isfinite(core.swiglu(x)[[0, 2]]).all()

    def test_in_loss(self, core, bad):
        (logits,) = draw(3, (3, 2000))
        logits[1, 1999] = bad if bad > 0 else np.nan
        assert not np.isfinite(core.cross_entropy(logits, np.array([1, 2, 3], np.int32))[0])

    def test_in_attention(self, core, bad):
        shape = AttentionShape(1, 70, 2, 1, 8, 4)
        qkv, dout, cos, sin = attention_problem(4, shape)
        out, lse = core.attention(shape, cos, sin, qkv)
        dout[50, 3] = bad
        gradient = core.attention_backward(shape, cos, sin, dout, qkv, out, lse)
        assert not np.isfinite(gradient).all()
        qkv[66, 28] = bad  # in a value, which nothing can hide
        assert not np.isfinite(core.attention(shape, cos, sin, qkv)[0][66:]).all()


def run_all(core):
    """Run each kernel that sums, at a size where threads start."""
    shape = AttentionShape(2, 150, 4, 2, 32, 16)
    qkv, dout, cos, sin = attention_problem(7, shape)
    out, lse = core.attention(shape, cos, sin, qkv)
    x, weight, dy, logits = draw(8, (300, 256), 256, (300, 256), (300, 500))
    y, rms = core.rms_norm(x, weight, 1e-5)
    labels = np.arange(300, dtype=np.int32)
    loss, row_sums = core.cross_entropy(logits, labels)
    return [
        out,
        lse,
        core.attention_backward(shape, cos, sin, dout, qkv, out, lse),
        y,
        *core.rms_norm_backward(dy, x, weight, rms),
        core.bias_backward(dy),
        np.array([loss, core.sum_of_squares(logits)]),
        core.cross_entropy_backward(1.0, logits, labels, row_sums),
    ]


def test_results_repeat_to_the_bit_whatever_the_number_of_threads(core):
    """A resumed run must repeat a straight one; 20 runs over 1 to 5 threads."""
    first = run_all(core)
    try:
        for run in range(20):
            core.set_threads(1 + run % 5)
            for expected, actual in zip(first, run_all(core), strict=True):
                assert np.array_equal(expected, actual)
    finally:
        core.set_threads(0)
