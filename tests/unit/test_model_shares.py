"""What ranks hold of a shared network, what they store of it, and the way between the two."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.adapters.memory.thread_communicator import ThreadWorld
from glm3.domain.errors import ConfigError, ParameterMismatchError
from glm3.domain.layout.boxes import box_shape, check_cover
from glm3.domain.layout.network_cut import NetworkCut, cut_network
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes, to_mindspore_name
from glm3.domain.training.model_shares import ModelShares


def network(heads: int, groups: int) -> ModelConfig:
    return ModelConfig(
        num_layers=1,
        padded_vocab_size=48,
        hidden_size=24,
        ffn_hidden_size=8 * heads,
        kv_channels=8,
        num_attention_heads=heads,
        multi_query_group_num=groups,
        add_bias_linear=True,
    )


def arrays_of(config: ModelConfig) -> dict[str, np.ndarray]:
    """Return complete parameters in which every number tells where it belongs."""
    return {
        name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1
        for name, shape in parameter_shapes(config).items()
    }


@st.composite
def jobs(draw: st.DrawFn) -> tuple[ModelConfig, NetworkCut]:
    ways, copies = draw(st.sampled_from([(2, 1), (2, 2), (4, 1), (4, 2), (2, 3), (1, 2)]))
    groups = draw(st.sampled_from([1, 2, 4]))
    cut = NetworkCut(
        data_parallel=copies,
        model_parallel=ways,
        optimizer_parallel=draw(st.booleans()),
        vocab_emb_dp=draw(st.booleans()),
        optimizer_threshold=draw(st.sampled_from([0, 2000])),
    )
    return network(4 * draw(st.sampled_from([1, 2])), groups), cut


def joined(array: np.ndarray, parts) -> np.ndarray:
    return np.concatenate([array[box] for box in parts])


@given(jobs())
@settings(max_examples=8, deadline=None)
def test_files_hold_what_the_strategy_says_and_lead_back(job):
    """From what is held and updated to files, and from files, or complete arrays, back."""
    config, cut = job
    complete = arrays_of(config)
    strategy = cut_network(parameter_shapes(config), cut, itemsize=4)

    def body(communicator):
        shares = ModelShares.among(config, cut, 4, communicator)
        for name, array in complete.items():
            held, updated = joined(array, shares.held(name)), joined(array, shares.updated(name))
            rows = shares.updated_rows(name)
            assert np.array_equal(updated, held if rows is None else held[rows])
            own = strategy.slices(to_mindspore_name(name), array.shape, communicator.rank)
            stored = shares.to_store(name, held)
            if name in shares.stored_rows:
                stored = stored[shares.stored_rows[name]]
            np.testing.assert_array_equal(stored, array[own], err_msg=name)
            np.testing.assert_array_equal(shares.state_to_store(name, updated), array[own], err_msg=name)
            np.testing.assert_array_equal(shares.complete(name, held), array, err_msg=name)
            for given_array in (array, array[own]):
                np.testing.assert_array_equal(shares.from_store(name, given_array), held, err_msg=name)
                state = f"adam_m.{name}"
                np.testing.assert_array_equal(shares.from_store(name, given_array, state), updated)
        return

    ThreadWorld(cut.ranks_per_stage, timeout=20).run(body)


@given(jobs())
@settings(max_examples=8, deadline=None)
def test_ranks_update_everything_and_count_the_copies(job):
    config, cut = job
    size, ways = cut.ranks_per_stage, cut.model_parallel

    def body(communicator):
        return ModelShares.among(config, cut, 4, communicator)

    shares = ThreadWorld(size, timeout=20).run(body)
    for name, shape in parameter_shapes(config).items():
        counts = np.zeros(shape)
        for own in shares:
            for box in own.updated(name):
                counts[box] += 1
        groups = config.num_kv_heads
        repeated = max(ways // groups, 1) if ".query_key_value." in name else 1
        # A query is held by one model parallel rank, its group's key and value by several.
        if shares[0].updated_rows(name) is None:
            assert counts.min() == shares[0].copies(name)
            assert set(np.unique(counts)) <= {shares[0].copies(name), shares[0].copies(name) * repeated}
        else:
            assert counts.min() >= 1
        check_cover(shape, {own.world.rank: own.stored(name) for own in shares}, name)
        assert all(box_shape(own.stored(name)) == box_shape(shares[0].stored(name)) for own in shares)


def test_a_part_of_another_shape_is_refused_by_name():
    config, cut = network(4, 2), NetworkCut(model_parallel=2)

    def body(communicator):
        name = "transformer.output_layer.weight"
        ModelShares.among(config, cut, 4, communicator).from_store(name, np.zeros((3, 24), np.float32))

    with pytest.raises(ParameterMismatchError, match=r"output_layer.weight: expected \(24, 24\)") as caught:
        ThreadWorld(2, timeout=20).run(body)
    assert caught.value.mis_shaped[0][2] == (3, 24)


def test_one_process_alone_shares_nothing():
    with pytest.raises(ConfigError) as caught:
        ModelShares.among(network(4, 2), NetworkCut(model_parallel=2), 4, SingleProcessCommunicator())
    assert caught.value.found == 2
