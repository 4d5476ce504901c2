"""Port: files of rows, read one by one and never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from attrs import frozen

from glm3.domain.errors import InvalidInputError

__all__ = ["RowFile", "RowReader", "StoredRow"]


@frozen(eq=False)
class StoredRow:
    """One row as it stands in its file: the ``line`` it begins on, from 1, and its parsed JSON ``value``.

    ``fault`` says why it cannot be read, and then there is no value.
    """

    line: int
    value: object = None
    fault: InvalidInputError | None = None


class RowFile(Protocol):
    """A file whose rows have been found, and are parsed when they are asked for. May be read by threads."""

    @property
    def path(self) -> Path: ...

    @property
    def blank_lines(self) -> int:
        """Lines between rows that hold nothing."""
        ...

    def __len__(self) -> int: ...

    def read_rows(self, start: int = 0, stop: int | None = None) -> Iterator[StoredRow]:
        """Yield the rows from number ``start``, from 0, up to ``stop``; without it, to the end.

        Raises:
            InvalidInputError: the file is no longer the one that was opened.
            StorageError: it cannot be read.
        """
        ...


class RowReader(Protocol):
    """Find the rows of a file."""

    def open(self, path: Path) -> RowFile:
        """Find the rows of ``path``.

        Raises:
            MissingFileError: there is no such file, or it is a folder.
            InvalidInputError: it is not a text of the kind that this reader reads.
            StorageError: it cannot be read.
        """
        ...
