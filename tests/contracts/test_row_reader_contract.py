"""What every reader of rows holds to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from glm3.adapters.jsonl.reader import JsonRowFile, JsonRowReader
from glm3.adapters.memory.row_reader import MemoryRowFile, MemoryRowReader
from glm3.domain.errors import InvalidInputError, MissingFileError
from glm3.domain.ports.dataset import RowFile

ADAPTERS = [JsonRowFile, MemoryRowFile]

Open = Callable[[list[object]], RowFile]
BROKEN = object()


@pytest.fixture(params=ADAPTERS)
def open_rows(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    path = tmp_path / "rows.jsonl"

    def from_memory(values: list[object]) -> RowFile:
        kept = [InvalidInputError("broken") if value is BROKEN else value for value in values]
        return MemoryRowReader({path: kept}).open(path)

    def from_file(values: list[object]) -> RowFile:
        lines = ["{" if value is BROKEN else json.dumps(value) for value in values]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return JsonRowReader().open(path)

    return from_memory if request.param is MemoryRowFile else from_file


VALUES: list[object] = [{"a": index} for index in range(5)]


def test_rows_come_in_order_with_their_lines(open_rows: Open) -> None:
    file = open_rows(VALUES)
    assert len(file) == 5
    assert [(row.line, row.value, row.fault) for row in file.read_rows()] == [
        (line, value, None) for line, value in enumerate(VALUES, 1)
    ]
    assert file.blank_lines == 0


@pytest.mark.parametrize(
    ("start", "stop", "lines"), [(2, 4, [3, 4]), (3, None, [4, 5]), (4, 9, [5]), (7, 9, [])]
)
def test_a_part_is_read_alone(open_rows: Open, start: int, stop: int | None, lines: list[int]) -> None:
    assert [row.line for row in open_rows(VALUES).read_rows(start, stop)] == lines


def test_a_broken_row_is_a_fault_in_its_place_and_the_others_are_read(open_rows: Open) -> None:
    rows = list(open_rows([VALUES[0], BROKEN, VALUES[2]]).read_rows())
    assert [row.fault is None for row in rows] == [True, False, True]
    assert rows[2].value == VALUES[2]


def test_no_rows_are_no_fault(open_rows: Open) -> None:
    file = open_rows([])
    assert (len(file), list(file.read_rows())) == (0, [])


@pytest.mark.parametrize("adapter", [JsonRowReader(), MemoryRowReader({})])
def test_a_missing_file_is_named(adapter: JsonRowReader, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere\.json"):
        adapter.open(tmp_path / "nowhere.json")
