"""A check finds everything that training would meet, and more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.row_reader import MemoryRowReader
from glm3.application.check_data import CheckRequest, DataCheck
from glm3.domain.errors import InvalidInputError
from glm3.domain.training.data_report import DataReport, Lengths, fault_kind, suggest_limits
from glm3.domain.training.row_layout import RowFormat, RowLayout

PATH = Path("rows")
LAYOUT = RowLayout(max_source_length=8, max_target_length=7, max_seq_length=30)


def checked(*values: object, layout: RowLayout = LAYOUT, max_faults: int = 50) -> DataReport:
    request = CheckRequest(path=PATH, layout=layout, tokenizer=ByteTokenizer(), max_faults=max_faults)
    return DataCheck(MemoryRowReader({PATH: values})).run(request)


def pair(content: str, summary: str) -> dict[str, str]:
    return {"content": content, "summary": summary}


def test_good_rows_are_usable_and_counted() -> None:
    report = checked(pair("abc", "de"), pair("f", "ghij"))
    assert report.usable
    assert (report.rows, report.faulty, report.prompts_cut, report.answers_cut) == (2, 0, 0, 0)
    assert report.supervised_tokens == 2 + 1 + 4 + 1
    assert report.lengths is not None
    assert report.lengths.values.tolist() == [2 + 1 + 4 + 1, 2 + 3 + 2 + 1]


def test_all_faults_are_counted_by_kind_and_the_first_are_kept() -> None:
    report = checked(*[{"content": "x"}] * 30, InvalidInputError("bad", line=31), pair("a", ""), max_faults=4)
    assert not report.usable
    assert report.faulty == 32
    assert [(fault.path, fault.line) for fault in report.faults] == [(PATH, line) for line in (1, 2, 3, 4)]
    assert report.fault_kinds == {"summary: missing field": 30, "bad": 1, "summary: bad row": 1}


def test_cut_prompts_and_answers_are_told_apart() -> None:
    report = checked(pair("a" * 7, "b"), pair("a", "b" * 8), pair("a" * 7, "b" * 8), pair("a", "b"))
    assert (report.prompts_cut, report.answers_cut) == (2, 2)


def test_rows_that_become_the_same_are_duplicates_of_the_first() -> None:
    """Rows that differ only behind the cut teach the same thing twice."""
    report = checked(
        pair("a", "b"),
        pair("c", "d"),
        pair("a", "b"),
        pair("a", "b"),
        pair("x" * 20, "y"),
        pair("x" * 30, "y"),
    )
    assert report.duplicates == 3
    assert report.duplicate_lines == [(3, 1), (4, 1), (6, 5)]
    assert report.usable


def test_dialogues_that_teach_nothing_are_named_and_alone_are_not_usable() -> None:
    layout = RowLayout(format=RowFormat.DIALOGUE, max_seq_length=30)

    def talk(question: str) -> dict[str, object]:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "a"}]
        return {"conversations": turns}

    report = checked(talk("u" * 60), talk("u"), layout=layout)
    assert (report.nothing_learned, report.nothing_learned_lines, report.usable) == (1, [1], True)
    assert not checked(talk("u" * 60), layout=layout).usable


def test_no_rows_are_not_usable_and_have_no_lengths() -> None:
    report = checked()
    assert not report.usable
    assert report.lengths is None
    assert list(report.suggestions) == []


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.99, 1.0]),
)
def test_suggested_limits_leave_that_share_uncut(rows: list[tuple[int, int]], share: float) -> None:
    sources, targets = (np.array(part) for part in zip(*rows, strict=True))
    limits = suggest_limits(
        RowFormat.ADGEN, Lengths(sources), Lengths(sources + targets + 1), Lengths(targets), share
    )
    keys = limits.keys
    assert (sources <= keys["max_source_length"]).mean() >= share
    assert (targets <= keys["max_target_length"]).mean() >= share
    assert limits.seq_length == keys["max_source_length"] + keys["max_target_length"] + 1
    assert limits.seq_length % 16 == 0


@given(st.lists(st.integers(1, 500), min_size=1, max_size=80), st.floats(0.01, 1))
def test_a_limit_is_the_smallest_that_covers(values: list[int], share: float) -> None:
    limit = Lengths(np.array(values)).covering(share)
    assert np.mean(np.array(values) <= limit) >= share - 1e-12
    assert np.mean(np.array(values) < limit) < share


@given(st.lists(st.integers(1, 500), min_size=1, max_size=80), st.integers(1, 15))
def test_a_histogram_counts_every_row_once(values: list[int], bins: int) -> None:
    parts = Lengths(np.array(values)).histogram(bins)
    assert len(parts) <= bins
    assert sum(part.rows for part in parts) == len(values)
    for part in parts:
        assert part.rows == sum(part.low <= value <= part.high for value in values)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (InvalidInputError("bad row", field="conversations[12].content"), "conversations[].content: bad row"),
        (
            InvalidInputError("not valid JSON: Extra data, character 8 of the row"),
            "not valid JSON: Extra data",
        ),
    ],
)
def test_kinds_of_faults_leave_positions_out(fault: InvalidInputError, kind: str) -> None:
    assert fault_kind(fault) == kind
