"""The fused CPU kernel set inside MindSpore: against the stock set and against the official torch code."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from glm3.adapters.mindspore.kernels.adamw import step_settings
from glm3.adapters.mindspore.kernels.cpu import CpuKernels
from glm3.adapters.mindspore.runtime import graph_mode, prepare
from glm3.domain.tensors import DType
from support import oracles
from support.models import (
    GOLDEN_MODELS,
    ArrayReader,
    ChatGLMNetwork,
    HeadLayout,
    MindSporeModel,
    StockKernels,
    golden_arrays,
    golden_config,
    golden_parameters,
    load_weights,
    tiny_config,
)
from support.native import kernel_build


class Loss(nn.Cell):
    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network
        self.kernels = network.kernels

    def construct(self, input_ids, labels):
        return self.kernels.cross_entropy(self.network(input_ids), labels)


class LossAndGradients(nn.Cell):
    """The scaled loss and its gradients, as a train step takes them."""

    def __init__(self, network, scale=1.0):
        super().__init__(auto_prefix=False)
        self.loss = Loss(network)
        self.scale = ms.Tensor(scale, ms.float32)
        self.parameters_of = ms.ParameterTuple(network.trainable_params())
        self.grad = ops.grad(self.scaled, None, self.parameters_of)

    def scaled(self, input_ids, labels):
        return self.loss(input_ids, labels) * self.scale

    def construct(self, input_ids, labels):
        return self.loss(input_ids, labels), self.grad(input_ids, labels)


def cpu_kernels(config):
    return CpuKernels(HeadLayout.of(config), kernel_build().path)


def stock_kernels(config):
    return StockKernels(HeadLayout.of(config))


def loss_and_gradients(network, input_ids, labels, scale=1.0):
    """Return the loss and each parameter's gradient by name; labels are shifted already."""
    cell = LossAndGradients(network, scale)
    loss, gradients = cell(ms.Tensor(input_ids, ms.int32), ms.Tensor(labels.reshape(-1), ms.int32))
    names = [parameter.name for parameter in cell.parameters_of]
    return float(loss.asnumpy()), {
        name: gradient.asnumpy() / scale for name, gradient in zip(names, gradients, strict=True)
    }


def worst_difference(gradients, expected):
    """Return the largest difference relative to its tensor's largest number."""
    assert gradients.keys() == expected.keys()
    return max(
        np.abs(gradients[name] - expected[name]).max() / np.abs(expected[name]).max() for name in expected
    )


def batch(config, rows, seq, seed=0):
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, config.padded_vocab_size, (2, rows, seq))
    ids[1, :, : seq // 3] = -100
    return ids[0], ids[1]


@pytest.fixture(params=["graph", "eager"])
def mode(request):
    prepare()
    if request.param == "eager":
        yield
    else:
        with graph_mode():
            yield


@pytest.mark.parametrize(
    ("changes", "seq"),
    [
        ({"multi_query_group_num": 1}, 32),
        ({"multi_query_group_num": 2}, 70),
        ({"multi_query_attention": False, "add_bias_linear": True}, 33),
        ({"apply_residual_connection_post_layernorm": True, "kv_channels": 12, "add_qkv_bias": False}, 5),
    ],
    ids=["one kv head", "two kv heads", "as many kv heads, biases", "other residual, 12 channels"],
)
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_gradients_agree_with_the_stock_set(mode, changes, seq, scale):
    """To 1e-5 of each tensor's largest number, at sequence lengths around the kernels' tiles."""
    config = tiny_config(seq_length=128, **changes)
    results = []
    for kernels in (stock_kernels(config), cpu_kernels(config)):
        network = ChatGLMNetwork(config, kernels)
        network.initialize(seed=4, scale=0.3)
        results.append(loss_and_gradients(network, *batch(config, 3, seq), scale))
    (expected_loss, expected), (loss, gradients) = results
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert worst_difference(gradients, expected) < 1e-5


class Dropped(nn.Cell):
    """What dropout makes of its input, and the gradient of its weighted sum."""

    def __init__(self, kernels):
        super().__init__(auto_prefix=False)
        self.kernels = kernels
        self.grad = ops.grad(self.weighted, 0)

    def weighted(self, x, weights, key):
        return ops.reduce_sum(self.kernels.dropout(x, key, 0.3) * weights)

    def construct(self, x, weights, key):
        return self.kernels.dropout(x, key, 0.3), self.grad(x, weights, key)


def test_dropout_has_the_bits_of_the_stock_set(mode):
    """Forward and backward: a run begun with one set goes on with the same masks on the other."""
    generator = np.random.default_rng(0)
    x, weights = (ms.Tensor(generator.standard_normal((70, 33)).astype(np.float32)) for _ in range(2))
    config = tiny_config()
    found = [
        [
            part.asnumpy().tobytes()
            for key in (0, 7, 2**32 - 1)
            for part in Dropped(kernels)(x, weights, ms.Tensor(key, ms.uint32))
        ]
        for kernels in (stock_kernels(config), cpu_kernels(config))
    ]
    assert found[0] == found[1]
    assert len(set(found[0])) == len(found[0])


@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_loss_and_gradients_of_the_official_code(mode, name):
    golden, config = golden_arrays(name), golden_config(name)
    network = ChatGLMNetwork(config, cpu_kernels(config))
    load_weights(network, ArrayReader(golden_parameters(name)))
    shifted = np.full_like(golden["labels"], -100)
    shifted[:, :-1] = golden["labels"][:, 1:]
    loss, gradients = loss_and_gradients(network, golden["input_ids"], shifted)
    assert loss == pytest.approx(float(golden["train_losses"][0]), rel=1e-5)
    expected = {key.removeprefix("grad:"): golden[key] for key in golden if key.startswith("grad:")}
    assert worst_difference(gradients, expected) < 1e-5


def test_repeated_steps_give_the_same_bits():
    config = tiny_config()
    network = ChatGLMNetwork(config, cpu_kernels(config))
    network.initialize(seed=4, scale=0.3)
    with graph_mode():
        cell = LossAndGradients(network)
        ids, labels = batch(config, 4, 32)
        inputs = ms.Tensor(ids, ms.int32), ms.Tensor(labels.reshape(-1), ms.int32)
        runs = [[gradient.asnumpy() for gradient in cell(*inputs)[1]] for _ in range(20)]
    for run in runs[1:]:
        for first, again in zip(runs[0], run, strict=True):
            assert np.array_equal(first, again)


@pytest.mark.parametrize(
    "dtype", [DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16], ids=lambda dtype: dtype.value
)
def test_scoring_and_cached_decoding_agree_with_the_stock_set(dtype):
    """Also over weights that are stored in half the bits."""
    config = tiny_config()
    ids, _ = batch(config, 1, 12)
    scores = []
    for kernels in (stock_kernels(config), cpu_kernels(config)):
        network = ChatGLMNetwork(config, kernels, dtype)
        network.initialize(seed=4, scale=0.3)
        model = MindSporeModel(network)
        cache = model.new_cache(rows=1, capacity=12)
        steps = [model.extend(cache, [0], [part]) for part in (ids[0, :7].tolist(), ids[0, 7:8].tolist())]
        scores.append([model.forward(ids), *steps])
    for expected, actual in zip(*scores, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)


def test_a_label_outside_the_vocabulary_stops_the_step(mode):
    config = tiny_config()
    kernels = cpu_kernels(config)
    with pytest.raises(RuntimeError, match="Glm3CrossEntropy"):
        kernels.cross_entropy(ms.Tensor(np.zeros((1, 48), np.float32)), ms.Tensor([48], ms.int32)).asnumpy()


class Update(nn.Cell):
    """One optimizer step whose result nothing reads, so that a compiler could drop it."""

    def __init__(self, kernels, parameter):
        super().__init__(auto_prefix=False)
        self.kernels = kernels
        self.parameters_of = (parameter,)
        self.means = (ms.Parameter(ms.Tensor(np.zeros(parameter.shape, np.float32)), name="mean"),)
        self.squares = (ms.Parameter(ms.Tensor(np.zeros(parameter.shape, np.float32)), name="square"),)

    def construct(self, gradient, settings):
        self.kernels.adamw(self.parameters_of, self.means, self.squares, (gradient,), settings)
        return self.kernels.sum_of_squares(gradient)


@pytest.mark.parametrize("corrected", [True, False])
def test_adamw_moves_the_parameters_in_place(mode, corrected):
    """Three steps, the gradient halved on the way in, and a fourth that is skipped."""
    generator = np.random.default_rng(0)
    start = generator.standard_normal((30, 7)).astype(np.float32)
    cell = Update(cpu_kernels(tiny_config()), ms.Parameter(ms.Tensor(start), name="parameter"))
    expected = (start.astype(np.float64), np.zeros_like(start), np.zeros_like(start))
    rule = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "decay": 0.1}
    for step in (1, 2, 3, 4):
        gradient = generator.standard_normal(start.shape).astype(np.float32)
        known = step_settings(1e-2, (0.9, 0.999), 1e-8, 0.1, step if corrected else None)
        settings = ms.Tensor([*known, 0.5, float(step < 4)], ms.float32)
        sum_of_squares = cell(ms.Tensor(gradient), settings).asnumpy()
        assert sum_of_squares == pytest.approx((gradient.astype(np.float64) ** 2).sum(), rel=1e-6)
        if step < 4:
            expected = oracles.adamw(*expected, 0.5 * gradient, **rule, step=step, corrected=corrected)
    moved = (cell.parameters_of[0], cell.means[0], cell.squares[0])
    for parameter, exact in zip(moved, expected, strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_has_no_finite_sum(mode, bad):
    x = ms.Tensor([1.0, bad], ms.float32)
    assert not np.isfinite(cpu_kernels(tiny_config()).sum_of_squares(x).asnumpy())


def test_kernel_sets_of_other_layouts_do_not_share_their_shapes(mode):
    """MindSpore remembers inferred shapes; these two differ in nothing but the cut of their heads."""
    qkv = ms.Tensor(np.ones((4, 64), np.float32))
    table = ms.Tensor(np.ones((4, 2), np.float32))
    shapes = []
    for heads, kv in ((6, 1), (4, 2)):
        kernels = CpuKernels(HeadLayout(heads, kv, 8), kernel_build().path)
        shapes.append(kernels.attention(qkv, table, table, 1, 4).shape)
    assert shapes == [(4, 48), (4, 32)]
