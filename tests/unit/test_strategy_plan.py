"""Slicing, gathering and cutting anew, over random cuts."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glm3.domain.errors import CheckpointError, InvalidInputError, MultipleFaultsError
from glm3.domain.layout.boxes import Box, box_shape, check_cover
from glm3.domain.layout.plan import gather, pieces_of, plan_tensor, sources_of
from glm3.domain.layout.strategy import COMPLETE, JobStrategy, Strategy
from glm3.domain.layout.tensor_layout import TensorLayout
from support.layouts import MAX_RANKS, jobs, layouts, owned_elements

NAME = "w"
SHAPE = (24, 16)
Numbers = NDArray[np.int64]


def cut(job: JobStrategy, full: Numbers) -> dict[int, Numbers]:
    """Return every rank's slice, from an enumeration of who holds which element."""
    slices: dict[int, Numbers] = {}
    holding = [stage for stage in job.stages if NAME in stage.layouts]
    for stage in holding or job.stages:
        layout = stage.layouts.get(NAME) or TensorLayout((stage.num_ranks,), (-1,) * full.ndim)
        for rank, owned in enumerate(owned_elements(layout, full.shape)):
            places = np.unravel_index(sorted(owned), full.shape)
            sides = [len(set(axis.tolist())) for axis in places]
            slices[stage.stage * stage.num_ranks + rank] = full.ravel()[sorted(owned)].reshape(sides)
    return slices


def make(
    plan: Mapping[int, tuple[object, ...]], slices: dict[int, Numbers], boxes: Mapping[int, Box]
) -> dict[int, Numbers]:
    """Follow a plan, refusing to write an element twice."""
    made = {}
    for rank, pieces in plan.items():
        array = np.full(box_shape(boxes[rank]), -1)
        for piece in pieces:
            assert (array[piece.target] == -1).all()  # type: ignore[attr-defined]
            array[piece.target] = slices[piece.rank][piece.source]  # type: ignore[attr-defined]
        made[rank] = array
    return made


@given(case=layouts())
def test_slicing_then_merging_is_the_identity(case: tuple[TensorLayout, tuple[int, ...]]) -> None:
    """For up to 1,024 ranks."""
    layout, shape = case
    full = np.arange(prod(shape)).reshape(shape)
    job = JobStrategy((Strategy({NAME: layout}, num_ranks=layout.num_ranks),))
    slices = {rank: full[layout.slices(shape, rank)] for rank in range(layout.num_ranks)}
    plan = plan_tensor(job, COMPLETE, NAME, shape)
    boxes = {0: tuple(slice(0, size) for size in shape)}
    np.testing.assert_array_equal(make(plan, slices, boxes)[0], full)


@given(source=jobs(SHAPE, NAME), target=jobs(SHAPE, NAME))
def test_cutting_anew_is_merging_and_slicing(source: JobStrategy, target: JobStrategy) -> None:
    full = np.arange(prod(SHAPE)).reshape(SHAPE)
    slices, expected = cut(source, full), cut(target, full)
    plan = plan_tensor(source, target, NAME, SHAPE)
    assert plan.keys() == expected.keys() == set(target.holders(NAME))
    boxes = {rank: target.slices(NAME, SHAPE, rank) for rank in plan}
    made = make(plan, slices, boxes)  # type: ignore[arg-type]
    for rank, array in expected.items():
        np.testing.assert_array_equal(made[rank], array)


@given(source=jobs(SHAPE, NAME, max_ranks=MAX_RANKS), data=st.data())
def test_copies_are_read_from_the_lowest_rank_alone(source: JobStrategy, data: st.DataObject) -> None:
    pieces = plan_tensor(source, COMPLETE, NAME, SHAPE)[0]
    parts = {piece.rank: source.slices(NAME, SHAPE, piece.rank) for piece in pieces}
    assert len(parts) == len(pieces)
    rank = data.draw(st.sampled_from(source.holders(NAME)))
    box = source.slices(NAME, SHAPE, rank)
    assert min(r for r in source.holders(NAME) if source.slices(NAME, SHAPE, r) == box) in parts
    assert sources_of(source, COMPLETE, {NAME: SHAPE}, 0) == sorted(parts)


@given(source=jobs(SHAPE, NAME), top=st.integers(0, 23), rows=st.integers(1, 24))
def test_any_rows_can_be_gathered(source: JobStrategy, top: int, rows: int) -> None:
    full = np.arange(prod(SHAPE)).reshape(SHAPE)
    box = (slice(top, min(top + rows, 24)), slice(0, 16))
    made = make({0: pieces_of(source, NAME, SHAPE, box)}, cut(source, full), {0: box})
    np.testing.assert_array_equal(made[0], full[box])


@given(case=layouts(axes=2))
def test_the_slices_of_a_layout_cover_the_tensor(case: tuple[TensorLayout, tuple[int, ...]]) -> None:
    layout, shape = case
    check_cover(shape, {rank: layout.slices(shape, rank) for rank in range(layout.num_ranks)})


@given(case=layouts(axes=2), data=st.data())
def test_a_slice_that_nobody_holds_is_found(
    case: tuple[TensorLayout, tuple[int, ...]], data: st.DataObject
) -> None:
    layout, shape = case
    boxes = {rank: layout.slices(shape, rank) for rank in range(layout.num_ranks)}
    lost = boxes[data.draw(st.sampled_from(sorted(boxes)))]
    left = {rank: box for rank, box in boxes.items() if box != lost}
    with pytest.raises(CheckpointError, match="no rank holds"):
        check_cover(shape, left, "w")


@given(case=layouts(axes=2), data=st.data())
def test_a_slice_that_reaches_into_others_is_found(
    case: tuple[TensorLayout, tuple[int, ...]], data: st.DataObject
) -> None:
    layout, shape = case
    boxes = {rank: layout.slices(shape, rank) for rank in range(layout.num_ranks)}
    rank = data.draw(st.sampled_from(sorted(boxes)))
    rows = boxes[rank][0]
    grown = (slice(max(rows.start - 1, 0), min(rows.stop + 1, shape[0])), boxes[rank][1])
    if grown == boxes[rank]:
        return
    boxes[len(boxes)] = grown
    with pytest.raises((CheckpointError, MultipleFaultsError), match="overlap"):
        check_cover(shape, boxes, "w")


def test_all_faults_of_a_cover_are_named() -> None:
    boxes = {0: (slice(0, 2),), 1: (slice(1, 3),), 3: (slice(5, 6),)}
    with pytest.raises(MultipleFaultsError) as caught:
        check_cover((8,), boxes, "w")
    assert [str(fault) for fault in caught.value.faults] == [
        "w: ranks 0 and 1 hold slices that overlap (found [1:2])",
        "w: no rank holds a part of the tensor (expected [3:5])",
        "w: no rank holds a part of the tensor (expected [6:8])",
    ]
    with pytest.raises(CheckpointError, match="rank 2 holds a part outside"):
        check_cover((8,), {2: (slice(4, 9),)})


def test_ranks_count_through_the_stages() -> None:
    rows = TensorLayout((2,), (0, -1))
    job = JobStrategy((Strategy({"a": rows}, 2, 0), Strategy({"b": rows, "shared": rows}, 2, 1)))
    assert (job.num_ranks, job.num_stages, job.ranks_per_stage) == (4, 2, 2)
    assert job.parameters == ("a", "b", "shared")
    assert job.holders("a") == (0, 1)
    assert job.holders("b") == (2, 3)
    assert job.slices("b", (4, 4), 3) == (slice(2, 4), slice(0, 4))
    assert job.slices("b", (4, 4), 0) is None
    assert gather(COMPLETE, job, "b", (4, 4), 0) == ()


def test_what_has_no_layout_is_whole_on_every_rank() -> None:
    job = JobStrategy((Strategy({}, 2, 0), Strategy({}, 2, 1)))
    assert job.holders("global_step") == (0, 1, 2, 3)
    assert job.slices("global_step", (1,), 3) == (slice(0, 1),)


def test_an_optimizer_state_is_cut_as_its_parameter() -> None:
    job = JobStrategy((Strategy({"a": TensorLayout((2,), (0,))}, 2),))
    assert job.slices("adam_m.a", (4,), 1) == (slice(2, 4),)
    assert job.slices("adam_m.b", (4,), 1) == (slice(0, 4),)


@pytest.mark.parametrize(
    ("stages", "fields"),
    [
        ((Strategy({}, 2, 0), Strategy({}, 2, 2)), ["stage"]),
        ((Strategy({}, 2, 0), Strategy({}, 2, 0)), ["stage"]),
        ((Strategy({}, 2, 1), Strategy({}, 4, 0)), ["stage", "stage", "num_ranks"]),
    ],
)
def test_stages_that_make_no_job_are_refused(stages: tuple[Strategy, ...], fields: list[str]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        JobStrategy(stages)
    faults = getattr(caught.value, "faults", (caught.value,))
    assert [fault.field for fault in faults] == fields


def test_no_stage_makes_no_job() -> None:
    with pytest.raises(InvalidInputError, match="without stages"):
        JobStrategy(())


def test_every_layout_for_another_number_of_ranks_is_named() -> None:
    layouts = {"a": TensorLayout((2,), (0,)), "b": TensorLayout((3,), (0,)), "c": TensorLayout((4,), (0,))}
    with pytest.raises(MultipleFaultsError) as caught:
        Strategy(layouts, num_ranks=2)
    assert [fault.field for fault in caught.value.faults] == ["b", "c"]
