"""The MindSpore network against the numpy oracle, in shapes for which no golden model exists."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.mindspore.runtime import graph_mode
from support.models import (
    GOLDEN_MODELS,
    golden_arrays,
    golden_config,
    golden_parameters,
    mindspore_model,
    tiny_config,
)

SHAPES = {
    "linear_bias": {"add_bias_linear": True, "add_qkv_bias": False},
    "residual_behind_norm": {"apply_residual_connection_post_layernorm": True, "post_layer_norm": False},
    "all_heads": {"multi_query_attention": False, "rope_ratio": 50},
    "attention_wider_than_hidden": {"kv_channels": 16, "layernorm_epsilon": 1e-3},
    "one_layer": {"num_layers": 1, "multi_query_group_num": 1},
}


@pytest.fixture(params=SHAPES)
def pair(request):
    oracle = NumpyModel.random(tiny_config(**SHAPES[request.param]), seed=3, scale=0.3)
    return oracle, mindspore_model(oracle.config, oracle.parameters())


def test_whole_sequences(pair):
    oracle, model = pair
    ids = np.random.default_rng(0).integers(0, 48, (3, 17))
    mask = np.ones_like(ids)
    mask[0, :5] = 0
    mask[1, -4:] = 0
    positions = np.cumsum(mask, axis=1) - 1
    positions[2] += 9
    arguments = {"attention_mask": mask, "position_ids": np.maximum(positions, 0)}
    real = mask != 0
    expected = oracle.forward(ids, **arguments)
    np.testing.assert_allclose(model.forward(ids, **arguments)[real], expected[real], atol=1e-4)
    for state, reference in zip(
        model.hidden_states(ids, **arguments), oracle.hidden_states(ids, **arguments), strict=True
    ):
        np.testing.assert_allclose(state[real], reference[real], atol=1e-4)


def test_a_prompt_longer_than_a_query_block():
    """Prompts are attended in blocks of queries; the seams must not show, nor those of a second chunk."""
    oracle = NumpyModel.random(tiny_config(seq_length=400), seed=4, scale=0.3)
    model = mindspore_model(oracle.config, oracle.parameters())
    ids = np.random.default_rng(1).integers(0, 48, 300).tolist()
    cache, reference = model.new_cache(2, 400), oracle.new_cache(2, 400)
    for chunk in ([ids[:270], ids[:1]], [ids[270:], ids[1:200]]):
        np.testing.assert_allclose(
            model.extend(cache, [0, 1], chunk), oracle.extend(reference, [0, 1], chunk), atol=1e-4
        )


@pytest.fixture(scope="module", params=GOLDEN_MODELS)
def trained(request):
    """Return reference loss and gradients, and what one compiled graph makes of the same batch."""
    golden = golden_arrays(request.param)
    model = mindspore_model(golden_config(request.param), golden_parameters(request.param))
    network = model.network
    network.set_train()

    def loss(input_ids, labels):
        return network.kernels.cross_entropy(network(input_ids), labels)

    class Step(ms.nn.Cell):
        def __init__(self):
            super().__init__(auto_prefix=False)
            self.weights = ms.ParameterTuple(network.trainable_params())
            self.gradient = ms.value_and_grad(loss, None, self.weights)

        def construct(self, input_ids, labels):
            return self.gradient(input_ids, labels)

    ids = golden["input_ids"].astype(np.int32)
    shifted = np.full_like(ids, -100)
    shifted[:, :-1] = golden["labels"][:, 1:]
    step = Step()
    with graph_mode():
        value, gradients = step(ms.Tensor(ids), ms.Tensor(shifted.reshape(-1)))
    named = {p.name: g.asnumpy() for p, g in zip(step.weights, gradients, strict=True)}
    return golden, float(value.asnumpy()), named


def test_loss_in_a_graph(trained):
    golden, value, _ = trained
    assert value == pytest.approx(golden["train_losses"][0], abs=1e-5)


def test_gradients_in_a_graph(trained):
    golden, _, gradients = trained
    references = {name.removeprefix("grad:"): array for name, array in golden.items() if name[:5] == "grad:"}
    assert references.keys() == gradients.keys()
    errors = {name: np.abs(gradients[name] - reference).max() for name, reference in references.items()}
    assert max(errors.values()) < 1e-4, errors
