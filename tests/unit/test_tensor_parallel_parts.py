from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import ConfigError, MultipleFaultsError
from glm3.domain.layout.tensor_parallel import TensorParallel, row_permutation
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import layer_prefix, parameter_shapes

QKV = layer_prefix(0) + "self_attention.query_key_value.weight"
GLM3_6B = ModelConfig()


def small(heads: int, groups: int) -> ModelConfig:
    return ModelConfig(
        num_layers=1,
        hidden_size=16,
        ffn_hidden_size=48,
        kv_channels=4,
        num_attention_heads=heads,
        multi_query_group_num=groups,
        padded_vocab_size=96,
    )


def test_two_ranks_of_the_published_model_have_one_group_each() -> None:
    ranks = TensorParallel(GLM3_6B, 2)
    assert ranks.query_key_value_rows(0) == (slice(0, 2048), slice(4096, 4224), slice(4352, 4480))
    assert ranks.query_key_value_rows(1) == (slice(2048, 4096), slice(4224, 4352), slice(4480, 4608))
    assert ranks.swiglu_rows(1) == (slice(6848, 13696), slice(20544, 27392))


def test_more_ranks_than_groups_hold_the_same_group() -> None:
    ranks = TensorParallel(GLM3_6B, 4)
    assert ranks.ranks_per_group == 2
    assert [ranks.groups(rank) for rank in range(4)] == [slice(0, 1), slice(0, 1), slice(1, 2), slice(1, 2)]


@given(groups=st.sampled_from([1, 2, 4]), size=st.sampled_from([1, 2, 4, 8]))
def test_a_rank_has_the_groups_that_its_heads_read(groups: int, size: int) -> None:
    config = small(8, groups)
    ranks = TensorParallel(config, size)
    for rank in range(size):
        read = {head * groups // 8 for head in range(8)[ranks.heads(rank)]}
        assert read == set(range(groups)[ranks.groups(rank)])


@given(groups=st.sampled_from([1, 2, 4]), size=st.sampled_from([1, 2, 4, 8]))
def test_ranks_hold_every_element_as_often_as_they_say(groups: int, size: int) -> None:
    """Once, or by all ranks: whole parameters, and key and value rows by the ranks of a group."""
    config = small(8, groups)
    ranks = TensorParallel(config, size)
    for name, shape in parameter_shapes(config).items():
        times = np.zeros(shape, int)
        for rank in range(size):
            for part in ranks.parts(name, shape, rank):
                times[part] += 1
        expected = np.full(shape, 1 if ranks.is_cut(name, shape) else size)
        if "query_key_value" in name and size > 1:
            expected[config.attention_size :] = ranks.ranks_per_group
        np.testing.assert_array_equal(times, expected)


@given(size=st.sampled_from([1, 2, 4]))
def test_a_contiguous_cut_of_the_permuted_matrix_gives_every_rank_its_rows(size: int) -> None:
    ranks = TensorParallel(small(8, 4), size)
    rows = [ranks.query_key_value_rows(rank) for rank in range(size)]
    order = row_permutation(rows)
    for rank, part in enumerate(np.split(order, size)):
        expected = [row for part_of in rows[rank] for row in range(part_of.start, part_of.stop)]
        assert part.tolist() == expected
    np.testing.assert_array_equal(order[np.argsort(order)], np.arange(len(order)))


def test_shared_groups_have_no_permutation() -> None:
    ranks = TensorParallel(small(8, 2), 4)
    with pytest.raises(ConfigError, match="several ranks hold"):
        row_permutation([ranks.query_key_value_rows(rank) for rank in range(4)])


def test_every_number_that_does_not_divide_is_named() -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        TensorParallel(GLM3_6B, 3)
    assert [fault.field for fault in caught.value.faults] == [
        "num_attention_heads",
        "ffn_hidden_size",
        "padded_vocab_size",
        "multi_query_group_num",
    ]


def test_mindspore_names_are_known_too() -> None:
    shapes = parameter_shapes(GLM3_6B)
    ranks = TensorParallel(GLM3_6B, 2, vocab_emb_dp=False)
    shape = shapes["transformer.embedding.word_embeddings.weight"]
    assert ranks.parts("transformer.embedding.embedding_table", shape, 1) == (
        (slice(32512, 65024), slice(0, 4096)),
    )
    assert len(ranks.parts(QKV, shapes[QKV], 1)) == 3
