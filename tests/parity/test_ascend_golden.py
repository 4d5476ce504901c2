"""The Ascend kernel set, its fused operators replaced by their references, against the official torch code.

Layouts, masks, angles, slots and block tables are the fused operators' own. Scores and greedy ids are tested
with those of every model.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from support.models import GOLDEN_MODELS, ascend_model, golden_arrays, golden_config, golden_parameters

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=GOLDEN_MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def golden(name):
    return golden_arrays(name)


@pytest.fixture(scope="module")
def model(name):
    return ascend_model(golden_config(name), golden_parameters(name))


def test_chunks_and_forks_change_nothing(model, golden):
    """A prompt in pieces, a row forked from it, and rows of unequal lengths score as one whole pass."""
    ids, expected = golden["input_ids"][0].tolist(), golden["logits"][0]
    half, cut = len(ids) // 2, len(ids) - 3
    cache = model.new_cache(rows=3, capacity=len(ids))
    model.extend(cache, [0], [ids[:half]])
    cache.copy_row(0, 2)
    scores = model.extend(cache, [0, 1], [ids[half:cut], ids[:1]])
    assert np.abs(scores - expected[[cut - 1, 0]]).max() < TOLERANCE
    scores = model.extend(cache, [2, 0], [ids[half:], ids[cut : cut + 1]])
    assert np.abs(scores - expected[[-1, cut]]).max() < TOLERANCE


def test_loss_and_first_gradients(model, golden):
    labels = golden["labels"]
    targets = np.full_like(labels, -100)
    targets[:, :-1] = labels[:, 1:]
    network = model.network
    parameters = [p for p in network.get_parameters() if f"grad:{p.name}" in golden]

    def loss(ids, wanted):
        return network.kernels.cross_entropy(network(ids), wanted)

    value, gradients = ops.value_and_grad(loss, None, parameters)(
        ms.Tensor(golden["input_ids"], ms.int32), ms.Tensor(targets.reshape(-1), ms.int32)
    )
    np.testing.assert_allclose(value.asnumpy(), golden["train_losses"][0], rtol=1e-5)
    assert len(parameters) >= 1
    for parameter, gradient in zip(parameters, gradients, strict=True):
        expected = golden[f"grad:{parameter.name}"]
        error = np.abs(gradient.asnumpy() - expected).max()
        assert error < 1e-4 * max(1.0, np.abs(expected).max()), parameter.name
