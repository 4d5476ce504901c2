"""Rows that were never in a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from glm3.domain.errors import InvalidInputError, MissingFileError
from glm3.domain.ports.dataset import StoredRow

__all__ = ["MemoryRowFile", "MemoryRowReader"]


@frozen
class MemoryRowFile:
    """Values, each on a line of its own; an error among them is a row that cannot be read."""

    path: Path
    values: Sequence[object]
    blank_lines: int = 0

    def __len__(self) -> int:
        return len(self.values)

    def read_rows(self, start: int = 0, stop: int | None = None) -> Iterator[StoredRow]:
        for line, value in enumerate(self.values[start:stop], start + 1):
            if isinstance(value, InvalidInputError):
                yield StoredRow(line, fault=value)
            else:
                yield StoredRow(line, value)


class MemoryRowReader:
    """Serve rows from memory by path."""

    def __init__(self, files: Mapping[Path, Sequence[object]]) -> None:
        self._files = files

    def open(self, path: Path) -> MemoryRowFile:
        """Return the rows of ``path``.

        Raises:
            MissingFileError: there are none.
        """
        if path not in self._files:
            raise MissingFileError("no such file of rows", path=path)
        return MemoryRowFile(path, self._files[path])
