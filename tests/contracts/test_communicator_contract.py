"""What every communicator must hold to, whatever the number of its ranks.

A test body runs once for each rank; what it claims must hold on every one.
"""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.domain.errors import InvalidInputError
from glm3.domain.ports.communicator import Communicator, ReduceOp

ADAPTERS = [SingleProcessCommunicator]


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.__name__)
def communicator(request) -> Communicator:
    return request.param()


def of_rank(rank: int, shape: tuple[int, ...] = (3, 2)) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 10 * rank


def test_the_rank_is_one_of_the_world(communicator):
    assert 0 <= communicator.rank < communicator.world_size


@pytest.mark.parametrize(
    ("op", "combine"), [(ReduceOp.SUM, np.sum), (ReduceOp.MEAN, np.mean), (ReduceOp.MAX, np.max)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_all_reduce_combines_all_ranks(communicator, op, combine, dtype, shape):
    """Whole numbers, whose sums are exact in each of the dtypes."""
    reduced = communicator.all_reduce(of_rank(communicator.rank, shape).astype(dtype), op)
    expected = combine([of_rank(rank, shape) for rank in range(communicator.world_size)], axis=0)
    np.testing.assert_array_equal(reduced, expected)
    assert (reduced.shape, reduced.dtype) == (shape, dtype)


def test_all_gather_keeps_ranks_apart_and_lets_shapes_differ(communicator):
    gathered = communicator.all_gather(of_rank(communicator.rank, (communicator.rank + 1, 2)))
    assert len(gathered) == communicator.world_size
    for rank, array in enumerate(gathered):
        np.testing.assert_array_equal(array, of_rank(rank, (rank + 1, 2)))


def test_reduce_scatter_gives_the_first_ranks_the_rows_that_are_left_over(communicator):
    world, rank = communicator.world_size, communicator.rank
    rows = 2 * world + 1
    part = communicator.reduce_scatter(of_rank(rank, (rows, 2)))
    expected = np.sum([of_rank(other, (rows, 2)) for other in range(world)], axis=0)
    np.testing.assert_array_equal(part, np.array_split(expected, world)[rank])


def test_a_scalar_cannot_be_scattered(communicator):
    with pytest.raises(InvalidInputError):
        communicator.reduce_scatter(np.float32(1))


def test_broadcast_gives_every_rank_the_roots_array(communicator):
    for root in range(communicator.world_size):
        received = communicator.broadcast(of_rank(communicator.rank), root)
        np.testing.assert_array_equal(received, of_rank(root))
    with pytest.raises(InvalidInputError):
        communicator.broadcast(of_rank(0), communicator.world_size)


def test_results_are_the_callers_own(communicator):
    """Writing into a result must not reach the array it was made of."""
    array = of_rank(communicator.rank)
    kept = array.copy()
    results = (
        communicator.all_reduce(array),
        communicator.all_gather(array)[communicator.rank],
        communicator.broadcast(array, communicator.rank),
        communicator.reduce_scatter(array),
    )
    for result in results:
        result += 1
    np.testing.assert_array_equal(array, kept)


def test_the_barrier_lets_go(communicator):
    assert communicator.barrier() is None
