"""Parse the bytes of one row, or say where and why they are not JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

from glm3.domain.errors import InvalidInputError
from glm3.domain.ports.dataset import StoredRow

__all__ = ["parse_row"]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Control characters inside strings are accepted, as MindFormers' loaders accept them.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse)


def parse_row(content: bytes, path: Path, line: int, offset: int) -> StoredRow:
    """Return the row that ``content`` holds; it lies at byte ``offset`` of its file, on ``line``."""
    try:
        text = content.rstrip(b" \t\r\n").decode()
    except UnicodeDecodeError as error:
        return StoredRow(line, fault=_not_utf8(content, error.start, path, line, offset))
    try:
        return StoredRow(line, _DECODER.decode(text))
    except json.JSONDecodeError as error:
        reason, place = f"{error.msg}, character {error.pos + 1} of the row", line + error.lineno - 1
    except RecursionError:
        reason, place = "nested too deeply", line
    except ValueError as error:  # a number of too many digits, or NaN
        reason, place = str(error), line
    fault = InvalidInputError(f"not valid JSON: {reason}", path=path, line=place, found=_excerpt(text))
    return StoredRow(line, fault=fault)


def _not_utf8(content: bytes, start: int, path: Path, line: int, offset: int) -> InvalidInputError:
    hint = None
    try:
        if any(character > "\x7f" for character in content.decode("gb18030")):
            hint = "these bytes read as GB18030 (GBK); convert them with iconv -f GB18030 -t UTF-8"
    except UnicodeDecodeError:
        pass
    return InvalidInputError(
        "not UTF-8",
        path=path,
        line=line + content[:start].count(b"\n"),
        found=f"byte 0x{content[start]:02x} at offset {offset + start} of the file",
        hint=hint,
    )


def _excerpt(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 40 else text[:37] + "...") if text else "nothing"
