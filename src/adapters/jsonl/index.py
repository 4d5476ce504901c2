"""Find where the rows of a file lie, without parsing them.

Eight bytes a number: the index of a million rows takes 24 MB, whatever the rows hold.
"""

from __future__ import annotations

import mmap
import re
from array import array
from collections.abc import Callable
from typing import BinaryIO

from attrs import field, frozen

__all__ = ["RowIndex", "index_array", "index_lines"]

_SPACE = b" \t\r\n"
_CHUNK = 1 << 20

# Strings are matched whole: brackets and commas in them do not count. An unfinished one eats the rest.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]|,', re.DOTALL)


def _numbers() -> array[int]:
    return array("q")


@frozen(eq=False)
class RowIndex:
    """Row ``i`` is the bytes from ``starts[i]`` to ``stops[i]`` and begins on line ``lines[i]``, from 1.

    ``broken`` says why nothing after the last row could be told apart, and on which line.
    """

    starts: array[int] = field(factory=_numbers)
    stops: array[int] = field(factory=_numbers)
    lines: array[int] = field(factory=_numbers)
    blank_lines: int = 0
    broken: tuple[int, str] | None = None

    def add(self, start: int, stop: int, line: int) -> None:
        self.starts.append(start)
        self.stops.append(stop)
        self.lines.append(line)


def index_lines(file: BinaryIO, begin: int) -> RowIndex:
    """Return every line that is not blank, from offset ``begin`` on.

    Only a line feed ends a line: JSON's strings may hold Unicode's other separators.
    """
    file.seek(begin)
    index, offset, blank = RowIndex(), begin, 0
    for number, line in enumerate(file, 1):
        if line.isspace():
            blank += 1
        else:
            index.add(offset, offset + len(line), number)
        offset += len(line)
    return RowIndex(index.starts, index.stops, index.lines, blank)


def index_array(view: mmap.mmap, begin: int) -> RowIndex:
    """Return every element of the JSON array that begins at or after offset ``begin``."""
    index, line_of = RowIndex(), _line_counter(view)
    depth, start = 0, begin
    for token in _TOKEN.finditer(view, begin):
        sign = token[0][:1]
        if sign in b"[{":
            depth += 1
            if depth == 1:
                start = token.end()
        elif sign in b"]}":
            depth -= 1
        closed = depth == 0
        if closed or (sign == b"," and depth == 1):
            first = _skip_space(view, start, token.start())
            if not (closed and first == token.start() and not index.starts):  # [] has no element
                index.add(first, token.start(), line_of(first))
            start = token.end()
        if closed:
            rest = _skip_space(view, start, len(view))
            trouble = (line_of(rest), "something follows the end of the array") if rest < len(view) else None
            return RowIndex(index.starts, index.stops, index.lines, 0, trouble)
    line = line_of(_skip_space(view, start, len(view)))
    return RowIndex(index.starts, index.stops, index.lines, 0, (line, "the array does not end"))


def _skip_space(view: mmap.mmap, start: int, stop: int) -> int:
    while start < stop and view[start] in _SPACE:
        start += 1
    return start


def _line_counter(view: mmap.mmap) -> Callable[[int], int]:
    """Return a function from rising offsets to lines."""
    line, counted = 1, 0

    def line_of(offset: int) -> int:
        nonlocal line, counted
        while counted < offset:
            stop = min(offset, counted + _CHUNK)
            line += view[counted:stop].count(b"\n")
            counted = stop
        return line

    return line_of
