from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import ConfigError, InvalidInputError, MultipleFaultsError
from glm3.domain.layout.network_cut import NetworkCut, cut_network, stage_of
from glm3.domain.layout.strategy import JobStrategy, Strategy
from glm3.domain.layout.tensor_layout import TensorLayout
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import layer_prefix, parameter_shapes, to_mindspore_name

GLM3_6B = ModelConfig()
SHAPES = parameter_shapes(GLM3_6B)
LAYER = layer_prefix(0)


def cuts(job: JobStrategy, name: str) -> tuple[int, ...]:
    """Return the shape of what rank 0's slice is a part of."""
    (stage,) = job.stages_of(to_mindspore_name(name))
    return stage.layouts[to_mindspore_name(name)].grid


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        (LAYER + "self_attention.query_key_value.weight", (2, 1)),
        (LAYER + "self_attention.query_key_value.bias", (2,)),
        (LAYER + "self_attention.dense.weight", (1, 2)),
        (LAYER + "mlp.dense_h_to_4h.weight", (2, 1)),
        (LAYER + "mlp.dense_4h_to_h.weight", (1, 2)),
        (LAYER + "input_layernorm.weight", (1,)),
        (LAYER + "post_attention_layernorm.weight", (1,)),
        ("transformer.encoder.final_layernorm.weight", (1,)),
        ("transformer.embedding.word_embeddings.weight", (1, 1)),
        ("transformer.output_layer.weight", (2, 1)),
    ],
)
def test_model_parallel_ranks_share_these_axes(name: str, grid: tuple[int, ...]) -> None:
    assert cuts(cut_network(SHAPES, NetworkCut(data_parallel=4, model_parallel=2)), name) == grid


def test_the_embedding_is_cut_by_rows_on_request() -> None:
    job = cut_network(SHAPES, NetworkCut(model_parallel=2, vocab_emb_dp=False, optimizer_parallel=True))
    assert cuts(job, "transformer.embedding.word_embeddings.weight") == (2, 1)


def test_the_attentions_output_is_cut_by_rows_on_request() -> None:
    job = cut_network(SHAPES, NetworkCut(model_parallel=2, attention_output_by_rows=True))
    assert cuts(job, LAYER + "self_attention.dense.weight") == (2, 1)
    assert cuts(job, LAYER + "mlp.dense_4h_to_h.weight") == (1, 2)


def test_the_optimizer_shard_takes_all_but_the_embedding_and_small_parameters() -> None:
    """As the model card's eight cards have it, in float16."""
    job = cut_network(SHAPES, NetworkCut(data_parallel=8, optimizer_parallel=True), itemsize=2)
    whole = {name for name, layout in job.stages[0].layouts.items() if layout.optimizer_shards == 1}
    assert whole == {
        to_mindspore_name(name) for name in SHAPES if "norm" in name or "embedding" in name or "bias" in name
    }
    assert job.slice_shape(LAYER + "mlp.dense_h_to_4h.weight", (27392, 4096), 7) == (3424, 4096)


def test_the_threshold_counts_the_bytes_of_the_complete_parameter() -> None:
    def shards(threshold: int) -> int:
        cut = NetworkCut(
            data_parallel=2, model_parallel=2, optimizer_parallel=True, optimizer_threshold=threshold
        )
        return cut.layout("x.mlp.dense_h_to_4h.weight", (48, 32)).optimizer_shards

    assert shards(48 * 32 * 4) == 2
    assert shards(48 * 32 * 4 + 1) == 1


def test_a_tensor_whose_rows_do_not_divide_keeps_its_copies() -> None:
    cut = NetworkCut(data_parallel=2, model_parallel=2, optimizer_parallel=True, optimizer_threshold=0)
    layout = cut.layout("x.mlp.dense_h_to_4h.weight", (6, 32))
    assert layout == TensorLayout((2, 2), (0, -1))


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (28, 4, [7, 7, 7, 7]),
        (28, 8, [3, 3, 3, 3, 3, 3, 3, 7]),
        (4, 3, [1, 1, 2]),
        (7, 2, [4, 3]),
        (3, 3, [1, 1, 1]),
    ],
)
def test_layers_go_to_stages_as_in_mindformers(layers: int, stages: int, expected: list[int]) -> None:
    found = [
        stage_of(layer_prefix(layer) + "input_layernorm.weight", layers, stages) for layer in range(layers)
    ]
    assert [found.count(stage) for stage in range(stages)] == expected
    assert stage_of("transformer.embedding.embedding_table", layers, stages) == 0
    assert stage_of("transformer.output_layer.weight", layers, stages) == stages - 1


def test_every_parameter_is_in_one_stage() -> None:
    job = cut_network(SHAPES, NetworkCut(data_parallel=2, model_parallel=2, pipeline_stage=4))
    assert set(job.parameters) == {to_mindspore_name(name) for name in SHAPES}
    assert sum(len(stage.layouts) for stage in job.stages) == len(SHAPES)
    assert job.num_ranks == 16
    job.check({to_mindspore_name(name): shape for name, shape in SHAPES.items()})


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 28"):
        cut_network(SHAPES, NetworkCut(pipeline_stage=29))


def test_every_parameter_that_does_not_divide_is_named() -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        cut_network(SHAPES, NetworkCut(model_parallel=5))
    assert len(caught.value.faults) == 28 * 5 + 1
    assert "transformer.output_layer.weight, axis 0" in str(caught.value)


def test_no_ranks_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        NetworkCut(model_parallel=0)
    assert caught.value.field == "model_parallel"


def test_the_strategy_of_another_network_is_refused() -> None:
    """Every layout that does not belong or fit is named; what has no layout is listed apart."""
    rows = TensorLayout((2,), (0, -1))
    job = JobStrategy(
        (Strategy({"a": rows, "b": rows, "c": rows, "adam_m.a": rows}, 2, shapes={"c": (4, 4)}),)
    )
    with pytest.raises(MultipleFaultsError) as caught:
        job.check({"a": (4, 4), "b": (3, 4), "c": (8, 4)})
    assert [fault.field for fault in caught.value.faults] == ["b, axis 0", "c"]
    with pytest.raises(InvalidInputError, match="no such parameter"):
        job.check({"a": (4, 4), "b": (4, 4)})
    assert job.uncovered(["a", "adam_v.b", "d"]) == ("d",)


@given(
    data=st.integers(1, 8),
    model=st.sampled_from([1, 2, 4]),
    stages=st.integers(1, 4),
    optimizer=st.booleans(),
    embedding=st.booleans(),
)
def test_every_cut_of_the_network_holds_all_of_it(
    data: int, model: int, stages: int, optimizer: bool, embedding: bool
) -> None:
    """The slices of each parameter have its elements, no more and no fewer, over the ranks without copies."""
    config = ModelConfig(
        num_layers=4,
        hidden_size=16,
        ffn_hidden_size=24,
        kv_channels=4,
        num_attention_heads=4,
        padded_vocab_size=32,
    )
    shapes = parameter_shapes(config)
    cut = NetworkCut(
        data_parallel=data,
        model_parallel=model,
        pipeline_stage=stages,
        optimizer_parallel=optimizer,
        vocab_emb_dp=embedding,
        optimizer_threshold=0,
    )
    job = cut_network(shapes, cut)
    for name, shape in shapes.items():
        seen = np.zeros(shape, int)
        parts = {
            str(job.slices(to_mindspore_name(name), shape, rank)): rank
            for rank in job.holders(to_mindspore_name(name))
        }
        for rank in parts.values():
            seen[job.slices(to_mindspore_name(name), shape, rank)] += 1
        assert (seen == 1).all()
