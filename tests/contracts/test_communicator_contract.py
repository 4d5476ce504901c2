"""What every communicator must hold to, whatever the number of its ranks.

A function ``on_rank_...`` runs on every rank of a world; what it claims must hold on each.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.adapters.memory.thread_communicator import ThreadCommunicator, ThreadWorld
from glm3.adapters.mindspore.communicator import MindSporeCommunicator
from glm3.domain.errors import CommunicationError, InvalidInputError
from glm3.domain.ports.communicator import ReduceOp, SupportsGroups
from support.worlds import OneRank, Processes, Threads

ADAPTERS = [SingleProcessCommunicator, ThreadCommunicator, MindSporeCommunicator]
WORLDS = [
    ("one", 1),
    *(("threads", size) for size in (1, 2, 3, 4)),
    *(("processes", size) for size in (2, 4)),
]
DTYPES = [np.float32, np.float64, np.float16, np.int64, np.int32, np.uint16, np.uint8, np.int8]
COMBINED = [(ReduceOp.SUM, np.sum), (ReduceOp.MEAN, np.mean), (ReduceOp.MAX, np.max)]


@pytest.fixture(scope="module", params=WORLDS, ids=lambda param: f"{param[0]}{param[1]}")
def world(request):
    kind, size = request.param
    made = {"one": lambda _: OneRank(), "threads": Threads, "processes": Processes}[kind](size)
    yield made
    made.close()


def of_rank(rank, shape=(3, 2), dtype=np.float32):
    """Whole numbers, of which sums and means of up to 4 ranks are exact in each of the dtypes."""
    return (np.arange(np.prod(shape)).reshape(shape) * 4 + 4 * rank).astype(dtype)


def on_rank_place(communicator):
    return communicator.rank, communicator.world_size


def test_every_rank_has_its_place(world):
    assert world.run(on_rank_place) == [(rank, world.size) for rank in range(world.size)]


def on_rank_reduce(communicator, dtype, shape):
    own = of_rank(communicator.rank, shape, dtype)
    for op, combine in COMBINED:
        others = [of_rank(rank, shape, dtype) for rank in range(communicator.world_size)]
        expected = combine(np.array(others, np.float64), axis=0)
        if np.dtype(dtype).kind in "iu":
            expected = np.floor(expected)
        reduced = communicator.all_reduce(own, op)
        np.testing.assert_array_equal(reduced, expected.astype(dtype), err_msg=op)
        assert (reduced.shape, reduced.dtype) == (shape, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3, 2), (0, 2), (1,)])
def test_all_reduce_combines_all_ranks(world, dtype, shape):
    world.run(on_rank_reduce, dtype, shape)


def on_rank_gather(communicator, dtype, empty):
    world = range(communicator.world_size)
    shapes = [(0 if rank == empty else rank + 1, 3) for rank in world]
    gathered = communicator.all_gather(of_rank(communicator.rank, shapes[communicator.rank], dtype))
    assert len(gathered) == len(world)
    for rank, array in enumerate(gathered):
        np.testing.assert_array_equal(array, of_rank(rank, shapes[rank], dtype))
        assert (array.shape, array.dtype) == (shapes[rank], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("empty", [None, 0])
def test_all_gather_keeps_ranks_apart_and_lets_shapes_differ(world, dtype, empty):
    world.run(on_rank_gather, dtype, empty)


def on_rank_gather_scalars(communicator):
    gathered = communicator.all_gather(np.array(communicator.rank, np.int64))
    assert [array.shape for array in gathered] == [()] * communicator.world_size
    assert [int(array) for array in gathered] == list(range(communicator.world_size))


def test_all_gather_takes_scalars(world):
    world.run(on_rank_gather_scalars)


def on_rank_scatter(communicator, rows):
    world, rank = communicator.world_size, communicator.rank
    for op, combine in COMBINED:
        part = communicator.reduce_scatter(of_rank(rank, (rows, 2)), op)
        expected = combine([of_rank(other, (rows, 2)) for other in range(world)], axis=0)
        np.testing.assert_array_equal(part, np.array_split(expected, world)[rank], err_msg=op)


@pytest.mark.parametrize("rows", [0, 1, 4, 9, 11])
def test_reduce_scatter_gives_the_first_ranks_the_rows_that_are_left_over(world, rows):
    world.run(on_rank_scatter, rows)


def on_rank_scatter_scalar(communicator):
    with pytest.raises(InvalidInputError):
        communicator.reduce_scatter(np.float32(1))


def test_a_scalar_cannot_be_scattered(world):
    world.run(on_rank_scatter_scalar)


def on_rank_broadcast(communicator, dtype):
    for root in range(communicator.world_size):
        shape = (root + 1, 3)
        own = of_rank(root, shape, dtype) if root == communicator.rank else of_rank(0, (), np.float64)
        received = communicator.broadcast(own, root)
        np.testing.assert_array_equal(received, of_rank(root, shape, dtype))
        assert (received.shape, received.dtype) == (shape, dtype)
    for root in (-1, communicator.world_size):
        with pytest.raises(InvalidInputError):
            communicator.broadcast(of_rank(0), root)


@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcast_gives_every_rank_the_roots_array(world, dtype):
    """Whatever the others hold in their place."""
    world.run(on_rank_broadcast, dtype)


def on_rank_write_into_results(communicator):
    array = of_rank(communicator.rank)
    kept = array.copy()
    results = (
        communicator.all_reduce(array),
        communicator.all_reduce(array.astype(np.float64)),
        communicator.all_gather(array)[communicator.rank],
        communicator.broadcast(array, communicator.rank and 0),
        communicator.reduce_scatter(array),
    )
    for result in results:
        result += 1
    communicator.barrier()
    np.testing.assert_array_equal(array, kept)


def test_results_are_the_callers_own(world):
    """Writing into a result reaches neither the array it was made of nor another rank's."""
    world.run(on_rank_write_into_results)


def on_rank_arrive_late(communicator):
    if communicator.rank == 0:
        time.sleep(0.3)
    before = time.monotonic()
    communicator.barrier()
    return before, time.monotonic()


def test_the_barrier_waits_for_the_last(world):
    """The clock is one for all processes of a host."""
    times = world.run(on_rank_arrive_late)
    assert min(after for _, after in times) >= max(before for before, _ in times)


def on_rank_split(communicator):
    world, rank = communicator.world_size, communicator.rank
    assert isinstance(communicator, SupportsGroups)
    for colors in (
        [other // 2 for other in range(world)],
        [other % 2 for other in range(world)],
        [7] * world,
    ):
        members = [other for other in range(world) if colors[other] == colors[rank]]
        group = communicator.split(colors[rank])
        assert (group.rank, group.world_size) == (members.index(rank), len(members))
        np.testing.assert_array_equal(
            group.all_reduce(of_rank(rank)), np.sum([of_rank(other) for other in members], axis=0)
        )
        for root, other in enumerate(members):
            np.testing.assert_array_equal(group.broadcast(of_rank(rank), root), of_rank(other))
        gathered = group.all_gather(of_rank(rank))
        np.testing.assert_array_equal(gathered, [of_rank(other) for other in members])
        group.barrier()


def test_ranks_of_one_color_make_a_group(world):
    world.run(on_rank_split)


def on_rank_disagree(communicator):
    if communicator.world_size == 1:
        return
    with pytest.raises(CommunicationError, match="different calls") as caught:
        communicator.barrier() if communicator.rank else communicator.all_reduce(of_rank(0))
    assert "rank 0: all_reduce" in caught.value.found
    assert "rank 1: barrier" in caught.value.found
    communicator.barrier()


def test_ranks_that_make_different_calls_are_told_who_does_what(world):
    """And may go on."""
    world.run(on_rank_disagree)


def on_rank_stay_away(communicator, absent):
    if communicator.rank in absent:
        return None
    with pytest.raises(CommunicationError) as caught:
        communicator.barrier()
    return caught.value


@pytest.mark.parametrize("absent", [(0,), (3,), (1, 2)])
def test_ranks_that_have_ended_are_named_at_once(absent):
    errors = Threads(4).run(on_rank_stay_away, absent)
    for rank in set(range(4)) - set(absent):
        named = errors[rank].missing  # of two that end, one is first
        assert set(named) <= set(absent)
        assert all(str(other) in errors[rank].message for other in named)
        assert named


def test_a_rank_that_does_not_come_in_time_is_named_to_all():
    world, over = ThreadWorld(3, timeout=0.2), threading.Event()

    def body(communicator):
        if communicator.rank == 1:
            over.wait(10)
            return None
        try:
            return on_rank_stay_away(communicator, ())
        finally:
            over.set()

    errors = world.run(body)
    assert [error and error.missing for error in errors] == [(1,), None, (1,)]


def test_a_rank_that_fails_is_what_the_others_errors_come_from():
    def body(communicator):
        if communicator.rank == 1:
            raise ValueError("mine")
        communicator.barrier()

    with pytest.raises(ValueError, match="mine"):
        ThreadWorld(2).run(body)
