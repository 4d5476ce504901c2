from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import InvalidInputError
from glm3.domain.training.sampling_order import SamplingOrder


@given(
    num_rows=st.integers(1, 200), batch=st.integers(1, 20), seed=st.integers(0, 5), epoch=st.integers(0, 3)
)
def test_an_epoch_visits_every_row_once(num_rows: int, batch: int, seed: int, epoch: int) -> None:
    order = SamplingOrder(num_rows=num_rows, global_batch=batch, seed=seed, drop_remainder=False)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    seen = np.concatenate([order.rows(step) for step in steps])
    assert sorted(seen) == list(range(num_rows))


@given(world_size=st.sampled_from([1, 2, 4]), step=st.integers(0, 40), seed=st.integers(0, 3))
def test_ranks_share_the_global_batch_of_one_process(world_size: int, step: int, seed: int) -> None:
    alone = SamplingOrder(num_rows=37, global_batch=8, seed=seed)
    shares = [
        SamplingOrder(num_rows=37, global_batch=8, seed=seed, rank=rank, world_size=world_size).rows(step)
        for rank in range(world_size)
    ]
    assert {len(share) for share in shares} == {8 // world_size}
    assert sorted(np.concatenate(shares)) == sorted(alone.rows(step))


def test_epochs_differ_and_seeds_differ_and_both_repeat() -> None:
    order = SamplingOrder(num_rows=50, global_batch=50, seed=1)
    again = SamplingOrder(num_rows=50, global_batch=50, seed=1)
    other = SamplingOrder(num_rows=50, global_batch=50, seed=2)
    assert order.rows(0).tolist() == again.rows(0).tolist()
    assert order.rows(0).tolist() != order.rows(1).tolist()
    assert order.rows(0).tolist() != other.rows(0).tolist()


def test_without_shuffle_rows_come_in_file_order() -> None:
    order = SamplingOrder(num_rows=6, global_batch=2, shuffle=False)
    assert [order.rows(step).tolist() for step in range(4)] == [[0, 1], [2, 3], [4, 5], [0, 1]]


def test_too_few_rows_for_a_batch_is_an_error_with_both_numbers() -> None:
    with pytest.raises(InvalidInputError, match=r"at least 8, found 5"):
        SamplingOrder(num_rows=5, global_batch=8)


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="a multiple of 4"):
        SamplingOrder(num_rows=50, global_batch=6, world_size=4)
