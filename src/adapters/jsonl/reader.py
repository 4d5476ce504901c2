"""Read rows from JSON Lines or from one JSON array, told apart by the first sign of the file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from glm3.adapters.jsonl.index import RowIndex, index_array, index_lines
from glm3.adapters.jsonl.parsing import parse_row
from glm3.domain.errors import InvalidInputError, MissingFileError, StorageError
from glm3.domain.ports.dataset import StoredRow

__all__ = ["JsonRowFile", "JsonRowReader"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_MARKS = {b"\xff\xfe": "UTF-16 or UTF-32", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "gzip"}
_LONGEST_BLANK_START = 1 << 16


@frozen(eq=False)
class JsonRowFile:
    """The rows of one file; see :class:`glm3.domain.ports.dataset.RowFile`."""

    path: Path
    index: RowIndex
    identity: tuple[int, int, int]

    @property
    def blank_lines(self) -> int:
        return self.index.blank_lines

    def __len__(self) -> int:
        return len(self.index.starts) + (self.index.broken is not None)

    def read_rows(self, start: int = 0, stop: int | None = None) -> Iterator[StoredRow]:
        index = self.index
        last = len(self) if stop is None else min(stop, len(self))
        try:
            with self.path.open("rb") as file:
                if _identity(file) != self.identity:
                    raise InvalidInputError("the file has changed while it was in use", path=self.path)
                for row in range(start, min(last, len(index.starts))):
                    file.seek(index.starts[row])
                    content = file.read(index.stops[row] - index.starts[row])
                    yield parse_row(content, self.path, index.lines[row], index.starts[row])
        except OSError as error:
            raise StorageError(f"cannot be read: {error.strerror}", path=self.path) from error
        if index.broken is not None and start < last == len(self):
            line, reason = index.broken
            yield StoredRow(line, fault=InvalidInputError(reason, path=self.path, line=line))


class JsonRowReader:
    """Find the rows of a file: one JSON object a line, or the elements of one JSON array.

    The text is UTF-8, with or without a byte order mark. A file whose first sign is ``[`` is an array,
    whatever its name ends in.
    """

    def open(self, path: Path) -> JsonRowFile:
        """Find the rows of ``path``.

        Raises:
            MissingFileError: there is no such file, or it is a folder.
            InvalidInputError: the file is compressed, or in another encoding than UTF-8 as a whole.
            StorageError: it cannot be read.
        """
        if path.is_dir():
            raise MissingFileError("a folder, not a file of rows", path=path, hint="name the file in it")
        try:
            with path.open("rb") as file:
                return JsonRowFile(path, _find_rows(file, path), _identity(file))
        except FileNotFoundError:
            raise MissingFileError("no such file of rows", path=path) from None
        except OSError as error:
            raise StorageError(f"cannot be read: {error.strerror}", path=path) from error


def _find_rows(file: BinaryIO, path: Path) -> RowIndex:
    head = file.read(_LONGEST_BLANK_START)
    for mark, name in _OTHER_MARKS.items():
        if head.startswith(mark):
            raise InvalidInputError("not a text in UTF-8", path=path, expected="UTF-8", found=name)
    begin = len(_BYTE_ORDER_MARK) if head.startswith(_BYTE_ORDER_MARK) else 0
    if not head[begin:].lstrip().startswith(b"["):
        return index_lines(file, begin)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return index_array(view, begin)


def _identity(file: BinaryIO) -> tuple[int, int, int]:
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns
