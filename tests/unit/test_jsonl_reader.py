"""Rows in files: found whatever the form, and every fault placed by line and byte."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.jsonl.reader import JsonRowReader
from glm3.domain.errors import InvalidInputError, MissingFileError, StorageError
from glm3.domain.ports.dataset import RowFile, StoredRow

objects = st.dictionaries(
    st.text(max_size=4),
    st.text(max_size=8) | st.integers() | st.lists(st.text('[]{},"\\ \n', max_size=5)),
    max_size=3,
)


def opened(tmp_path: Path, content: bytes) -> RowFile:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    return JsonRowReader().open(path)


def read(tmp_path: Path, content: bytes) -> list[StoredRow]:
    return list(opened(tmp_path, content).read_rows())


def faults(rows: list[StoredRow]) -> list[InvalidInputError]:
    return [row.fault for row in rows if row.fault is not None]


@settings(deadline=None)  # files are written
@given(rows=st.lists(objects, max_size=5), indent=st.sampled_from([None, 2]), mark=st.booleans())
def test_an_array_reads_as_its_elements(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int | None, mark: bool
) -> None:
    content = json.dumps(rows, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        content.decode()
    except UnicodeDecodeError:
        return
    found = read(tmp_path_factory.mktemp("array"), b"\xef\xbb\xbf" * mark + b"\n " + content + b"\n")
    assert [row.value for row in found] == rows
    assert not faults(found)
    if indent and all(rows):
        lines = content.decode().split("\n")
        assert [lines[row.line - 2] for row in found] == ["  {"] * len(rows)


@settings(deadline=None)  # files are written
@given(rows=st.lists(objects, min_size=1, max_size=5), end=st.sampled_from(["\n", "\r\n", "\n\n \t\n"]))
def test_lines_read_as_their_values(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], end: str
) -> None:
    content = end.join(json.dumps(row) for row in rows)
    file = opened(tmp_path_factory.mktemp("lines"), content.encode())
    assert [row.value for row in file.read_rows()] == rows
    assert file.blank_lines == (2 * (len(rows) - 1) if end.startswith("\n\n") else 0)


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    """Unicode's other separators may stand inside a string, as str.splitlines would not see it."""
    rows = [{"a": "x\u2028y\u0085z"}, {"b": 1}]
    content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    assert [row.value for row in read(tmp_path, content.encode())] == rows


def test_a_byte_order_mark_and_control_characters_in_strings_are_accepted(tmp_path: Path) -> None:
    assert [row.value for row in read(tmp_path, b'\xef\xbb\xbf{"a": "x\ty"}\n{"a": 2}')] == [
        {"a": "x\ty"},
        {"a": 2},
    ]


def test_a_row_in_another_encoding_is_a_fault_with_line_and_byte(tmp_path: Path) -> None:
    good = json.dumps({"a": "好"}, ensure_ascii=False).encode() + b"\n"
    bad = json.dumps({"a": "中文"}, ensure_ascii=False).encode("gb18030") + b"\n"
    rows = read(tmp_path, good + b"\n" + bad + good)
    (fault,) = faults(rows)
    assert (fault.line, [row.line for row in rows]) == (3, [1, 3, 4])
    offset = len(good) + 1 + bad.index(b"\xd6")
    assert fault.found == f"byte 0xd6 at offset {offset} of the file"
    assert "GB18030" in str(fault.hint)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_file_in_utf_16_is_refused_as_a_whole(tmp_path: Path, encoding: str) -> None:
    text = '\ufeff{"a": 1}' if encoding == "utf-16-be" else '{"a": 1}'
    with pytest.raises(InvalidInputError, match="UTF-16"):
        opened(tmp_path, text.encode(encoding))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "character 2"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1} {"b": 2}', "Extra data"),
        (b"[" * 9 + b"x", ""),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "digits"),
        (b"plain text", "character 1 of the row"),
    ],
)
def test_a_line_that_is_not_json_is_a_fault_and_its_neighbours_are_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    rows = read(tmp_path, b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    assert [row.value for row in rows] == [{"a": 1}, None, {"a": 3}]
    (fault,) = faults(rows)
    assert fault.line == 2
    assert reason in fault.message


@pytest.mark.parametrize(
    ("content", "lines", "reason"),
    [
        (b'[{"a": 1},\n{"b": x},\n{"c": 3}]', [2], "not valid JSON"),
        (b'[{"a": 1},\n\n{"b":\n\n!}\n]', [5], "not valid JSON"),
        (b'[{"a": 1},\n]', [2], "not valid JSON"),
        (b'[{"a": 1}\n{"b": 2}]', [2], "Extra data|delimiter"),
        (b'[{"a": 1},\n{"b": 2}', [2], "does not end"),
        (b'[{"a": 1},\n{"b": "2}]', [2], "does not end"),
        (b'[{"a": 1}]\n[2]', [2], "follows the end"),
        (b"[", [1], "does not end"),
    ],
)
def test_what_is_wrong_in_an_array_is_placed(
    tmp_path: Path, content: bytes, lines: list[int], reason: str
) -> None:
    rows = read(tmp_path, content)
    assert [fault.line for fault in faults(rows)] == lines
    assert any(part in faults(rows)[0].message for part in reason.split("|"))


@settings(deadline=None)  # files are written
@given(st.binary(max_size=60), st.booleans())
def test_no_bytes_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, array: bool
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    try:
        file = opened(folder, b"[" * array + content)
    except InvalidInputError:
        return
    rows = list(file.read_rows())
    assert len(rows) == len(file)
    assert all(row.fault is None or (row.fault.path and row.fault.line) for row in rows)


def test_a_folder_and_a_locked_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="folder"):
        JsonRowReader().open(tmp_path)
    path = tmp_path / "rows.json"
    path.write_bytes(b"{}")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything
        path.unlink()
        path.symlink_to(path)
    with pytest.raises(StorageError, match=r"rows\.json"):
        JsonRowReader().open(path)


def test_a_file_that_changes_while_it_is_in_use_is_refused(tmp_path: Path) -> None:
    file = opened(tmp_path, b'{"a": 1}\n{"a": 2}\n')
    (tmp_path / "rows.json").write_bytes(b'{"a": 1}\n')
    with pytest.raises(InvalidInputError, match="has changed"):
        list(file.read_rows())
