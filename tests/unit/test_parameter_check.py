"""What the shapes of a checkpoint tell about its network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.model_config import ModelConfig
from glm3.domain.parameter_check import compare_parameters, contradictions, implied_config
from glm3.domain.parameters import EMBEDDING, FINAL_NORM, parameter_shapes
from glm3.domain.tensors import DType, TensorSpec

INV_FREQ = "transformer.rotary_pos_emb.inv_freq"


def specs_of(config: ModelConfig, frequencies: bool = True) -> dict[str, TensorSpec]:
    shapes = parameter_shapes(config)
    if frequencies:
        shapes[INV_FREQ] = (config.kv_channels // 4,)
    return {name: TensorSpec(name, config.param_init_type, shape) for name, shape in shapes.items()}


CONFIGS = st.builds(
    ModelConfig,
    num_layers=st.integers(1, 12),
    padded_vocab_size=st.integers(1, 100),
    hidden_size=st.integers(1, 64),
    ffn_hidden_size=st.integers(1, 64),
    kv_channels=st.integers(1, 8).map(lambda n: 4 * n),
    num_attention_heads=st.integers(1, 4).map(lambda n: 4 * n),
    multi_query_group_num=st.sampled_from([1, 2, 4]),
    multi_query_attention=st.booleans(),
    add_bias_linear=st.booleans(),
    post_layer_norm=st.booleans(),
    param_init_type=st.sampled_from(["float32", "float16", "bfloat16"]),
)


@given(CONFIGS)
def test_a_network_is_read_off_its_shapes(config):
    implied = implied_config(specs_of(config))
    assert implied is not None
    for name in set(implied.derived) - {"multi_query_group_num"}:
        assert getattr(implied.config, name) == getattr(config, name)
    assert implied.config.num_kv_heads == config.num_kv_heads
    assert parameter_shapes(implied.config) == parameter_shapes(config)


def test_without_frequencies_the_channels_of_the_known_configuration_count():
    config = ModelConfig(hidden_size=64, kv_channels=16, num_attention_heads=4)
    implied = implied_config(specs_of(config, frequencies=False), config)
    assert implied.config.num_attention_heads == 4
    assert any("configuration" in text for text in implied.assumptions)


def test_without_anything_the_published_channels_are_assumed_and_said():
    implied = implied_config(specs_of(ModelConfig(), frequencies=False))
    assert (implied.config.kv_channels, implied.config.num_kv_heads) == (128, 2)
    assert any("128" in text for text in implied.assumptions)


@pytest.mark.parametrize("absent", [EMBEDDING, "transformer.encoder.layers.0.self_attention.dense.weight"])
def test_other_tensors_imply_nothing(absent):
    specs = specs_of(ModelConfig())
    del specs[absent]
    assert implied_config(specs) is None


def test_impossible_sizes_imply_nothing():
    specs = specs_of(ModelConfig(), frequencies=False)
    name = "transformer.encoder.layers.0.self_attention.query_key_value.weight"
    specs[name] = TensorSpec(name, DType.FLOAT16, (4097, 4096))
    assert implied_config(specs) is None


def test_differences_name_everything():
    config = ModelConfig(num_layers=1)
    shapes = {
        **parameter_shapes(config),
        INV_FREQ: (32,),
        "transformer.prefix_encoder.weight": (1,),
        "adam_m.x": (1,),
        EMBEDDING: (3, 4096),
    }
    del shapes[FINAL_NORM]
    differences = compare_parameters(shapes, config)
    assert differences.missing == (FINAL_NORM,)
    assert differences.unexpected == ("transformer.prefix_encoder.weight",)
    assert differences.mis_shaped == ((EMBEDDING, (65024, 4096), (3, 4096)),)
    assert differences
    assert not compare_parameters(parameter_shapes(config), config)


@given(CONFIGS, st.data())
def test_shapes_of_one_network_do_not_contradict_each_other_and_a_foreign_one_does(config, data):
    shapes = parameter_shapes(config)
    assert contradictions(shapes) == []
    name = data.draw(st.sampled_from(list(shapes)))
    assert contradictions({**shapes, name: tuple(size * 2 for size in shapes[name])}) != []
