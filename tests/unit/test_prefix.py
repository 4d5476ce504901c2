"""The rules of learned prefixes: shapes, names, what a stored one tells, and what a run's file asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import ConfigError, MultipleFaultsError
from glm3.domain.model_config import ModelConfig
from glm3.domain.run_config import check_for
from glm3.domain.training.adapters import trained_count
from glm3.domain.training.memory_plan import plan_memory
from glm3.domain.training.options import TrainOptions, decays
from glm3.domain.training.prefix import (
    PREFIX_EMBEDDING,
    PREFIX_PROJECTION,
    PrefixConfig,
    from_prefix_name,
    initial_prefix,
    is_prefix_parameter,
    prefix_of,
    prefix_shapes,
    prefix_width,
)
from glm3.domain.training.setup import adapter_config
from support.finetune import run_config

PUBLISHED = ModelConfig()
NAMES = (PREFIX_EMBEDDING, *PREFIX_PROJECTION)

prefixes = st.builds(
    PrefixConfig,
    length=st.integers(1, 9),
    projection=st.booleans(),
    projection_size=st.none() | st.integers(1, 9),
)


def test_names_and_shapes_are_those_of_chatglms_encoder() -> None:
    assert prefix_shapes(PUBLISHED, PrefixConfig(length=128, projection=True)) == {
        "transformer.prefix_encoder.embedding.weight": (128, 14336),
        "transformer.prefix_encoder.trans.0.weight": (4096, 14336),
        "transformer.prefix_encoder.trans.0.bias": (4096,),
        "transformer.prefix_encoder.trans.2.weight": (14336, 4096),
        "transformer.prefix_encoder.trans.2.bias": (14336,),
    }
    assert trained_count(PUBLISHED, PrefixConfig(length=128)) == 128 * 14336
    assert prefix_width(PUBLISHED.evolve(multi_query_attention=False)) == 14336 * 16


@given(prefixes)
def test_shapes_tell_the_prefix(config: PrefixConfig) -> None:
    """Short names too; what is read back has the same shapes, and so has what is drawn."""
    shapes = prefix_shapes(PUBLISHED, config)
    short = {name.removeprefix("transformer.prefix_encoder."): shape for name, shape in shapes.items()}
    assert {from_prefix_name(name): shape for name, shape in short.items()} == shapes
    assert prefix_shapes(PUBLISHED, prefix_of(shapes)) == shapes
    assert all(is_prefix_parameter(name) for name in shapes)
    assert not any(is_prefix_parameter(name) for name in short)


@given(prefixes, st.integers(0, 3))
def test_a_fresh_prefix_is_drawn_as_torch_draws_it(config: PrefixConfig, seed: int) -> None:
    model = ModelConfig.from_mapping({"num_layers": 1, "hidden_size": 16, "kv_channels": 8})
    drawn = initial_prefix(model, config, seed)
    assert {name: array.shape for name, array in drawn.items()} == prefix_shapes(model, config)
    assert {array.dtype for array in drawn.values()} == {np.dtype(np.float32)}
    again = initial_prefix(model, config, seed)
    assert all(np.array_equal(array, again[name]) for name, array in drawn.items())
    if config.projection:
        inner = config.projection_size or 16
        for number, inputs in ((0, prefix_width(model)), (2, inner)):
            for kind in ("weight", "bias"):
                array = drawn[f"transformer.prefix_encoder.trans.{number}.{kind}"]
                assert np.abs(array).max() <= inputs**-0.5


def test_the_embedding_is_normal() -> None:
    array = initial_prefix(PUBLISHED, PrefixConfig(length=4), 0)[PREFIX_EMBEDDING]
    assert array.mean() == pytest.approx(0, abs=0.02)
    assert array.std() == pytest.approx(1, abs=0.02)


def test_biases_alone_do_not_decay() -> None:
    shapes = prefix_shapes(PUBLISHED, PrefixConfig(projection=True))
    assert {name for name, shape in shapes.items() if not decays(name, shape)} == {
        name for name in shapes if name.endswith(".bias")
    }


@pytest.mark.parametrize("missing", NAMES)
def test_a_stored_prefix_lacks_nothing(missing: str) -> None:
    shapes = prefix_shapes(PUBLISHED, PrefixConfig(projection=True))
    del shapes[missing]
    with pytest.raises(ConfigError, match="a part of the prefix is missing"):
        prefix_of(shapes)


@pytest.mark.parametrize("name", ["weight", "embedding", "trans.1.weight", "prompt_embeddings", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="not a parameter of a prefix"):
        from_prefix_name(name)


def test_all_faults_are_told_together() -> None:
    with pytest.raises(ConfigError, match="pre_seq_len"):
        PrefixConfig(length=0)
    with pytest.raises(MultipleFaultsError) as caught:
        PrefixConfig(length=0, projection_size=-1, dropout=1.0)
    assert [fault.field for fault in caught.value.faults] == ["pre_seq_len", "projection_dim", "dropout_prob"]


def keys(**values: Any) -> dict[str, Any]:
    return {"model__model_config__pet_config": {"pet_type": "ptuning2", **values}}


def test_a_runs_file_asks_for_a_prefix(tmp_path: Path) -> None:
    asked = keys(pre_seq_len=7, prefix_projection=True, projection_dim=5, dropout_prob=0.25)
    expected = PrefixConfig(length=7, projection=True, projection_size=5, dropout=0.25)
    config = run_config(tmp_path, **asked)
    check_for(config)
    assert adapter_config(config) == expected
    networks = {"model__model_config__pre_seq_len": 6, "model__model_config__prefix_projection": True}
    assert adapter_config(run_config(tmp_path, **keys(), **networks)) == PrefixConfig(
        length=6, projection=True
    )


def test_a_prefix_without_a_length_is_no_run(tmp_path: Path) -> None:
    config = run_config(tmp_path, **keys())
    with pytest.raises(MultipleFaultsError, match="pre_seq_len: missing"):
        check_for(config)
    with pytest.raises(ConfigError, match="no length"):
        adapter_config(config)


def test_memory_counts_the_prefix() -> None:
    """Its cache is longer, and the scores of stock attention are kept, over the prefix too."""

    def plan(prefix: int) -> Any:
        return plan_memory(
            PUBLISHED,
            TrainOptions(),
            rows=2,
            seq_length=100,
            accumulates=False,
            fused=True,
            place="host",
            available=None,
            trained=128 * 14336,
            kv_rows=3,
            prefix=prefix,
        )

    plain, prefixed = plan(0), plan(128)
    assert prefixed.kv_cache * 100 == plain.kv_cache * 228
    scores = 28 * 5 * 32 * 228 * 2 * 100 * 4
    assert prefixed.activations - plain.activations == scores
