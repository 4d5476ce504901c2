"""Every model adapter against outputs of the official torch code, float32, 1e-4 absolute."""

from __future__ import annotations

import numpy as np
import pytest

from support.models import BUILDERS, GOLDEN_MODELS, golden_arrays, golden_config, golden_parameters

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=GOLDEN_MODELS)
def golden_name(request):
    return request.param


@pytest.fixture(scope="module")
def golden(golden_name):
    return golden_arrays(golden_name)


@pytest.fixture(scope="module", params=BUILDERS, ids=lambda adapter: adapter.__name__)
def model(request, golden_name):
    return BUILDERS[request.param](golden_config(golden_name), golden_parameters(golden_name))


def assert_close(actual, expected, what):
    error = float(np.abs(actual - expected).max())
    assert actual.shape == expected.shape
    assert error < TOLERANCE, f"{what}: {error}"


def test_logits(model, golden):
    assert_close(model.forward(golden["input_ids"]), golden["logits"], "logits")


def test_hidden_states(model, golden):
    """The embedding and every block's output; the last one without the final norm, (seq, batch, hidden)."""
    states = model.hidden_states(golden["input_ids"])
    assert len(states) == model.config.num_layers + 1
    for layer, state in enumerate(states):
        expected = golden[f"hidden_{layer}"].transpose(1, 0, 2)
        assert_close(state, expected, f"hidden {layer}")


@pytest.mark.parametrize("given_positions", [True, False])
def test_left_padded_batch(model, golden, given_positions):
    """Padding on the left changes nothing, whether positions are given or counted from the mask."""
    logits = model.forward(
        golden["padded_input_ids"],
        attention_mask=golden["padded_attention_mask"],
        position_ids=golden["padded_position_ids"] if given_positions else None,
    )
    assert_close(logits[:, -1], golden["padded_last_logits"], "padded")


def test_greedy_ids(model, golden):
    """32 greedy ids are exactly the reference's, one token at a time over the cache."""
    cache = model.new_cache(rows=1, capacity=len(golden["input_ids"][0]) + 32)
    ids = golden["input_ids"][0].tolist()
    produced = []
    for _ in range(32):
        scores = model.extend(cache, [0], [ids])
        ids = [int(scores[0].argmax())]
        produced += ids
    assert produced == golden["greedy_ids"].tolist()
    assert_close(scores, golden["last_step_logits"], "last step")
