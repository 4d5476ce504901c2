"""Filling a MindSpore network from a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.mindspore.loading import load_weights
from glm3.adapters.mindspore.model import MindSporeModel
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.domain.errors import CheckpointError, ParameterMismatchError
from glm3.domain.parameters import EMBEDDING, FINAL_NORM, OUTPUT_LAYER, to_mindspore_name
from glm3.domain.tensors import DType, from_float32, to_float32
from support.models import ArrayReader, HeadLayout, StockKernels, mindspore_model, tiny_config

CONFIG = tiny_config()


def network(dtype=DType.FLOAT32):
    return ChatGLMNetwork(CONFIG, StockKernels(HeadLayout.of(CONFIG)), dtype)


@pytest.fixture
def parameters():
    return NumpyModel.random(CONFIG, seed=5, scale=0.3).parameters()


def test_every_misfit_is_listed_and_nothing_is_loaded(parameters):
    missing = parameters.pop(FINAL_NORM)
    parameters["transformer.extra"] = missing
    parameters[OUTPUT_LAYER] = parameters[OUTPUT_LAYER][:-1]
    target = network()
    with pytest.raises(ParameterMismatchError) as caught:
        load_weights(target, ArrayReader(parameters))
    assert caught.value.missing == (FINAL_NORM,)
    assert caught.value.unexpected == ("transformer.extra",)
    assert caught.value.mis_shaped == ((OUTPUT_LAYER, (48, 24), (47, 24)),)
    assert not target.word_embeddings.asnumpy().any()


def test_recomputed_frequencies_are_ignored(parameters):
    parameters["transformer.rotary_pos_emb.inv_freq"] = np.ones(2, np.float32)
    assert mindspore_model(CONFIG, parameters).parameters().keys() == parameters.keys() - {
        "transformer.rotary_pos_emb.inv_freq"
    }


def test_mindspore_names_are_understood(parameters):
    renamed = {to_mindspore_name(name): array for name, array in parameters.items()}
    assert EMBEDDING not in renamed
    loaded = mindspore_model(CONFIG, renamed).parameters()
    np.testing.assert_array_equal(loaded[EMBEDDING], parameters[EMBEDDING])


def test_integers_are_no_weights(parameters):
    parameters[FINAL_NORM] = parameters[FINAL_NORM].astype(np.int8)
    with pytest.raises(CheckpointError, match="int8"):
        load_weights(network(), ArrayReader(parameters))


@pytest.mark.parametrize("stored", [DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32])
@pytest.mark.parametrize("held", [DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32])
def test_a_network_computes_with_what_its_dtype_can_hold(parameters, stored, held):
    """Scores equal the oracle's over the same rounded numbers, whatever the file and the network store."""
    carried = {name: from_float32(array, stored) for name, array in parameters.items()}
    target = network(held)
    load_weights(target, ArrayReader(carried, dict.fromkeys(carried, stored)))
    rounded = {
        name: to_float32(from_float32(to_float32(array, stored), held), held)
        for name, array in carried.items()
    }
    model = MindSporeModel(target)
    for name, array in model.parameters().items():
        np.testing.assert_array_equal(array, rounded[name])
    ids = np.array([[3, 1, 4, 1, 5]])
    np.testing.assert_allclose(model.forward(ids), NumpyModel(CONFIG, rounded).forward(ids), atol=1e-4)


def test_read_only_arrays_are_shared_not_copied(parameters):
    """A mapped file backs the parameter: the numbers are those of the array itself."""
    shared = parameters[OUTPUT_LAYER]
    shared.flags.writeable = False
    target = network()
    load_weights(target, ArrayReader(parameters))
    shared.flags.writeable = True
    shared[0, 0] = 42
    assert target.output_layer.weight.asnumpy()[0, 0] == 42


def test_a_fresh_network_is_reproducible():
    """The same seed draws the same weights; norms start at 1 and biases at 0."""
    first, second, other = network(), network(), network()
    first.initialize(7)
    second.initialize(7)
    other.initialize(8)
    arrays = [MindSporeModel(net).parameters() for net in (first, second, other)]
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name])
        if "layernorm" in name:
            assert (array == 1).all()
        elif name.endswith("bias"):
            assert not array.any()
        else:
            assert not np.array_equal(array, arrays[2][name])
            assert 0.01 < array.std() < 0.03
