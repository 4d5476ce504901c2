"""Rounded weights in the form of Ascend's quantised product."""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.mindspore.export.graphs import DecodeGraph
from glm3.adapters.mindspore.export.mindir import compile_graph, placeholder
from glm3.adapters.mindspore.kernels.ascend.quantized import ascend_levels, quantize_network
from glm3.adapters.mindspore.kernels.ascend.versions import OPERATORS
from glm3.domain.errors import InvalidInputError
from glm3.domain.parameters import parameter_shapes
from glm3.domain.quantization import QuantScheme, dequantize, quantize_rows
from glm3.domain.tensors import DType
from support.ascend import ascend_network
from support.models import ascend_model, tiny_config

CONFIG = tiny_config(num_layers=1, hidden_size=64, kv_channels=16, ffn_hidden_size=64)
SCHEMES = ("int8-channel", "int8-g32", "int4-channel", "int4-g32", "int4-g32-asym")


def drawn(seed, scheme):
    array = np.random.default_rng(seed).normal(size=(48, 64)).astype(np.float32)
    return quantize_rows(array, QuantScheme.parse(scheme))


@pytest.mark.parametrize("name", SCHEMES)
def test_levels_stand_for_the_weight(name):
    packed = drawn(1, "int4")
    found = ascend_levels(packed)
    joined = found.packed().astype(np.int16)
    assert joined.shape == (64, 24)
    low = (joined & 15) - 16 * ((joined & 15) > 7)
    np.testing.assert_array_equal(low, found.levels[:, ::2])
    np.testing.assert_array_equal(joined >> 4, found.levels[:, 1::2])


@pytest.mark.parametrize("name", ["int8-channel", "int4-g32-asym"])
def test_a_rounded_network_scores_as_the_numbers_it_stands_for(name):
    scheme = QuantScheme.parse(name)
    generator = np.random.default_rng(2)
    weights = {
        key: (0.2 * generator.normal(size=shape)).astype(np.float32)
        for key, shape in parameter_shapes(CONFIG).items()
    }
    plain = {
        key: dequantize(quantize_rows(array, scheme)) if _is_rounded(key) else array
        for key, array in weights.items()
    }
    rounded = ascend_model(CONFIG, weights)
    quantize_network(rounded.network, scheme)
    ids = generator.integers(0, CONFIG.padded_vocab_size, (2, 12))
    np.testing.assert_allclose(rounded.forward(ids), ascend_model(CONFIG, plain).forward(ids), atol=1e-3)


def _is_rounded(name):
    return ".layers." in name and name.endswith("weight") and "layernorm" not in name


@pytest.mark.parametrize(("name", "stored"), [("int8-channel", "INT8"), ("int4-g32", "QINT4X2")])
def test_decode_multiplies_levels(name, stored):
    """Every matrix of the blocks goes through the fused product; only the head is a plain one."""
    network = ascend_network(CONFIG, OPERATORS, DType.FLOAT16)
    network.initialize(seed=0)
    quantize_network(network, QuantScheme.parse(name))
    graph = compile_graph(DecodeGraph(network, 4), *[placeholder((2,))] * 3, placeholder((2, 2)))
    nodes = graph.of("WeightQuantBatchMatmul")
    assert len(nodes) == 4 * CONFIG.num_layers
    assert {node.inputs[1].dtype for node in nodes} == {stored}
    assert {node.inputs[0].dtype for node in nodes} == {"FLOAT16"}
    assert len(graph.of("MatMul")) == 1


def test_a_group_as_long_as_the_rows_is_refused():
    config = tiny_config(hidden_size=32, kv_channels=16, ffn_hidden_size=64)
    network = ascend_network(config, OPERATORS, DType.FLOAT16)
    network.initialize(seed=0)
    with pytest.raises(InvalidInputError, match="antiquant_group_size"):
        quantize_network(network, QuantScheme.parse("int8-g32"))
