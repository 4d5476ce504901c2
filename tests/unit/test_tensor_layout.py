from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import InvalidInputError, MultipleFaultsError
from glm3.domain.layout.tensor_layout import TensorLayout
from support.layouts import MAX_RANKS, layouts, owned_elements


def test_the_rightmost_axis_of_the_device_matrix_is_index_0() -> None:
    """Ranks 0 and 1 of a 2 x 2 matrix differ along index 0; rows cut by it alternate."""
    rows = TensorLayout((2, 2), (0, -1))
    assert [rows.slices((4, 6), rank)[0] for rank in range(4)] == [
        slice(0, 2),
        slice(2, 4),
        slice(0, 2),
        slice(2, 4),
    ]
    columns = TensorLayout((2, 2), (-1, 1))
    assert [columns.slices((4, 6), rank)[1] for rank in range(4)] == [
        slice(0, 3),
        slice(0, 3),
        slice(3, 6),
        slice(3, 6),
    ]


def test_the_optimizer_shard_cuts_rows_among_the_ranks_that_hold_copies() -> None:
    layout = TensorLayout((2, 2), (0, -1), optimizer_shard_step=2, optimizer_shard_size=-1)
    assert layout.slice_shape((8, 3)) == (2, 3)
    assert [layout.slices((8, 3), rank)[0].start for rank in range(4)] == [0, 4, 2, 6]


def test_an_optimizer_shard_over_some_copies_takes_neighbours() -> None:
    layout = TensorLayout((4, 2), (0, -1), optimizer_shard_step=2, optimizer_shard_size=2)
    assert [layout.slices((8, 3), rank)[0].start for rank in range(8)] == [0, 4, 2, 6, 0, 4, 2, 6]


@given(case=layouts())
def test_slices_are_what_device_coordinates_say(case: tuple[TensorLayout, tuple[int, ...]]) -> None:
    """The elements of every rank's slice are those that an enumeration of coordinates gives it."""
    layout, shape = case
    numbers = np.arange(prod(shape)).reshape(shape)
    owned = owned_elements(layout, shape)
    for rank in range(layout.num_ranks):
        part = numbers[layout.slices(shape, rank)]
        assert part.shape == layout.slice_shape(shape)
        assert set(part.ravel().tolist()) == owned[rank]


@given(case=layouts())
def test_the_tensor_is_known_from_its_slices_shape(case: tuple[TensorLayout, tuple[int, ...]]) -> None:
    layout, shape = case
    assert layout.full_shape(layout.slice_shape(shape)) == shape


@given(case=layouts())
def test_every_slice_is_held_and_by_its_lowest_rank(case: tuple[TensorLayout, tuple[int, ...]]) -> None:
    layout, _ = case
    for cell in product(*map(range, layout.grid)):
        ranks = [rank for rank in range(layout.num_ranks) if layout.cell(rank) == cell]
        assert ranks[0] == layout.holder(cell)


@given(case=layouts(optimizer_shard=False), rows=st.integers(1, 64))
def test_sharing_out_copies_leaves_whole_what_it_cannot_divide(
    case: tuple[TensorLayout, tuple[int, ...]], rows: int
) -> None:
    layout, shape = case
    if not shape:
        assert layout.with_optimizer_shard(shape) == layout
        return
    shape = (layout.cuts[0] * rows, *shape[1:])
    sharded = layout.with_optimizer_shard(shape)
    expected = layout.copies if rows % layout.copies == 0 else 1
    assert sharded.optimizer_shards == expected
    assert sharded.slice_shape(shape)[0] == rows // expected


def test_a_thousand_ranks() -> None:
    layout = TensorLayout((2, 64, 8), (0, 2), 8, -1)
    assert layout.num_ranks == MAX_RANKS
    assert layout.slice_shape((4096, 128)) == (8, 64)


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        (((2, 0), (0,)), "device_matrix"),
        (((2, 2), (2, -1)), "tensor_map"),
        (((2, 2), (-2, -1)), "tensor_map"),
        (((2, 2), (0, 0)), "tensor_map"),
        (((2, 3), (0, -1), 3, 3), "optimizer_shard_size"),
        (((3, 2), (-1, -1), 1, 3), "optimizer_shard_size"),
        (((2, 2), (0, -1), 1, 2), "optimizer_shard_step"),
        (((2, 2), (0, -1), 2, -2), "optimizer_shard_size"),
        (((2, 2), (), 1, -1), "optimizer_shard_size"),
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(parts: tuple[object, ...], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        TensorLayout(*parts)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_every_contradiction_is_named() -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        TensorLayout((2, 2), (2, -2))
    assert [fault.found for fault in caught.value.faults] == [2, -2]


@pytest.mark.parametrize(
    ("layout", "shape", "field"),
    [
        (TensorLayout((2, 2), (0, -1)), (5, 4), "axis 0"),
        (TensorLayout((2, 2), (-1, 1)), (4, 5), "axis 1"),
        (TensorLayout((2, 2), (-1, 1)), (4,), "tensor_map"),
        (TensorLayout((2, 2), (0, -1), 2, -1), (6, 4), "optimizer_shard_size"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(
    layout: TensorLayout, shape: tuple[int, ...], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        layout.slices(shape, 0)
    assert caught.value.field == field


def test_every_axis_that_does_not_fit_is_named() -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        TensorLayout((2, 2), (0, 1)).check((3, 5))
    assert [fault.field for fault in caught.value.faults] == ["axis 0", "axis 1"]


@pytest.mark.parametrize("rank", [-1, 4])
def test_a_rank_outside_the_stage_is_refused(rank: int) -> None:
    with pytest.raises(InvalidInputError, match="0 to 3"):
        TensorLayout((2, 2), (0,)).slices((4,), rank)
