"""Read the rows of a JSON file one by one, each with its line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from glm3.domain.errors import InvalidInputError, MissingFileError, StorageError

__all__ = ["read_rows"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_rows(path: Path) -> Iterator[tuple[int, object]]:
    """Yield ``(line, value)`` of every row; an unreadable row's value is the error that says why.

    Blank lines are passed over. A file whose first sign is ``[`` is one JSON array: its rows are numbered
    from 1, in the place of lines.

    Raises:
        MissingFileError: there is no such file.
        StorageError: it may not be read.
        InvalidInputError: it is an array, and not valid JSON.
    """
    if not path.is_file():
        raise MissingFileError("no such file of rows", path=path)
    try:
        with path.open("rb") as file:
            head = file.read(64).removeprefix(_BYTE_ORDER_MARK).lstrip()
            file.seek(0)
            if head.startswith(b"["):
                yield from _array(path, file.read())
                return
            for number, line in enumerate(file, 1):
                content = line.removeprefix(_BYTE_ORDER_MARK).strip() if number == 1 else line.strip()
                if content:
                    yield number, _parsed(content, path, number)
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror}", path=path) from error


def _parsed(content: bytes, path: Path, line: int) -> object:
    try:
        return json.loads(content.decode())
    except UnicodeDecodeError as error:
        return InvalidInputError(
            "not UTF-8", path=path, line=line, found=f"byte {content[error.start]:#04x} at {error.start}"
        )
    except (ValueError, RecursionError) as error:
        return InvalidInputError(f"not valid JSON: {error}", path=path, line=line)


def _array(path: Path, content: bytes) -> Iterator[tuple[int, object]]:
    try:
        rows = json.loads(content.removeprefix(_BYTE_ORDER_MARK).decode())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"not a JSON array in UTF-8: {error}", path=path) from None
    yield from enumerate(rows, 1)
