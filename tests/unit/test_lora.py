from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import ConfigError
from glm3.domain.parameters import parameter_shapes
from glm3.domain.training.lora import (
    LINEAR_MODULES,
    LoRAConfig,
    adapted_modules,
    adapter_names,
    adapter_shapes,
    from_adapter_name,
    initial_adapter,
    is_adapter_parameter,
    is_adapter_state,
    merge,
    stored_adapter_config,
    to_peft_name,
)
from support.models import tiny_config

MINDFORMERS = "tk_delta_lora_"
MODULE = "transformer.encoder.layers.3.self_attention.query_key_value"


def test_only_query_key_value_is_adapted_unless_asked():
    config = tiny_config()
    assert adapted_modules(config, LoRAConfig()) == [
        f"transformer.encoder.layers.{layer}.self_attention.query_key_value" for layer in (0, 1)
    ]


@pytest.mark.parametrize(
    ("pattern", "last_names"),
    [
        ("dense", ["dense"]),
        ("dense*", ["dense", "dense_h_to_4h", "dense_4h_to_h"]),
        ("*", ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]),
        (".*query_key_value*", ["query_key_value"]),
        ("dense_(h_to_4h|4h_to_h)", ["dense_h_to_4h", "dense_4h_to_h"]),
    ],
)
def test_patterns_are_globs_or_expressions_for_the_whole_last_name(pattern, last_names):
    lora = LoRAConfig(target_modules=pattern)
    assert [name.rpartition(".")[2] for name in LINEAR_MODULES if lora.targets(name)] == last_names


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"rank": 0}, "rank"),
        ({"alpha": 0.0}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"target_modules": ("query_key_value", "q_proj")}, "target_modules"),
        ({"target_modules": ()}, "target_modules"),
        ({"target_modules": "query"}, "target_modules"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values, field):
    with pytest.raises(ConfigError) as caught:
        LoRAConfig(**values)
    assert caught.value.field == field


def test_shapes_fit_the_weights_they_adapt():
    config = tiny_config()
    weights = parameter_shapes(config)
    lora = LoRAConfig(rank=3, target_modules="*")
    shapes = adapter_shapes(config, lora)
    assert len(shapes) == 2 * len(LINEAR_MODULES) * config.num_layers
    for module in adapted_modules(config, lora):
        a, b = (shapes[name] for name in adapter_names(module))
        assert (b[0], a[1]) == weights[f"{module}.weight"]
        assert (a[0], b[1]) == (3, 3)


@given(
    layer=st.integers(0, 99),
    module=st.sampled_from(LINEAR_MODULES),
    matrix=st.sampled_from("ab"),
    manner=st.sampled_from(
        [to_peft_name, lambda name: name.replace("mindpet_delta_lora_", MINDFORMERS), lambda name: name]
    ),
)
def test_every_manner_of_naming_leads_back(layer, module, matrix, manner):
    name = adapter_names(f"transformer.encoder.layers.{layer}.{module}")["ab".index(matrix)]
    assert from_adapter_name(manner(name)) == name
    assert is_adapter_parameter(manner(name))
    state = f"adam_m.{manner(name)}"
    assert is_adapter_state(state)
    assert not is_adapter_parameter(state)


def test_names_are_those_of_the_libraries():
    a, b = adapter_names(MODULE)
    assert (a, b) == (f"{MODULE}.mindpet_delta_lora_a", f"{MODULE}.mindpet_delta_lora_b")
    assert to_peft_name(b) == f"base_model.model.{MODULE}.lora_B.weight"
    assert from_adapter_name(f"{MODULE}.tk_delta_lora_a") == a
    assert from_adapter_name(f"{MODULE}.lora_A.default.weight") == a


@pytest.mark.parametrize("name", [f"{MODULE}.weight", f"{MODULE}.lora_A", "mindpet_delta_lora_a", ""])
def test_other_names_are_not_taken_for_adapters(name):
    assert not is_adapter_state(name)
    with pytest.raises(ConfigError, match="not an adapter parameter"):
        from_adapter_name(name)


def test_shapes_tell_rank_and_modules():
    model = tiny_config()
    lora = LoRAConfig(rank=3, alpha=7, target_modules=("dense", "query_key_value"))
    told = stored_adapter_config(adapter_shapes(model, lora), 7)
    assert (told.rank, told.scale) == (3, lora.scale)
    assert adapted_modules(model, told) == adapted_modules(model, lora)
    a, b = adapter_names(MODULE)
    for shapes in ({a: (3, 4), a.replace(".3.", ".4."): (2, 4)}, {b: (4, 3)}):
        with pytest.raises(ConfigError, match="no one rank"):
            stored_adapter_config(shapes, 7)


def test_a_fresh_adapter_changes_nothing_and_its_a_is_within_hes_bound():
    """Kaiming's uniform rule for a slope of sqrt(5): up to 1 / sqrt(inputs)."""
    a_name, b_name = adapter_names(MODULE)
    generator = np.random.default_rng(0)
    a, b = initial_adapter(a_name, (8, 400), generator), initial_adapter(b_name, (30, 8), generator)
    assert (b == 0).all()
    assert 0.049 < np.abs(a).max() <= 0.05
    assert abs(a.mean()) < 0.002
    assert a.dtype == b.dtype == np.float32


def test_merging_adds_the_scaled_product_in_float32():
    generator = np.random.default_rng(0)
    weight, a, b = (generator.standard_normal(shape).astype(np.float32) for shape in ((5, 4), (2, 4), (5, 2)))
    lora = LoRAConfig(rank=2, alpha=6)
    assert lora.scale == 3.0
    merged = merge(weight.astype(np.float16), a, b, lora.scale)
    exact = weight.astype(np.float16).astype(np.float64) + 3.0 * b.astype(np.float64) @ a
    np.testing.assert_allclose(merged, exact, rtol=0, atol=1e-5)
    assert merged.dtype == np.float32
