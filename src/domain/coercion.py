"""Read values as configuration files write them: the text ``None`` is null, ``1e-5`` without a dot a number.

YAML 1.1 reads both as strings, and the model card's files contain both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["as_bool", "as_float", "as_int", "as_text", "optional"]


def as_bool(value: object) -> bool:
    """Accept a bool, or the texts true and false in any letter case."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError("a bool (true or false)")


def as_int(value: object) -> int:
    """Accept an int, a float or text of integral value; never a bool."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # not through float, which has 53 bits
    number = as_float(value)
    if number != int(number):
        raise ValueError("an integer")
    return int(number)


def as_float(value: object) -> float:
    """Accept a finite int or float, or text that is one; never a bool."""
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            pass
        else:
            if number == number and abs(number) != float("inf"):
                return number
    raise ValueError("a number")


def as_text(value: object) -> str:
    """Accept text only."""
    if isinstance(value, str):
        return value
    raise ValueError("text")


def optional(convert: Callable[[object], Any]) -> Callable[[object], Any]:
    """Extend a converter by null, the empty text, and the texts None and null."""

    def convert_or_none(value: object) -> Any:
        return None if value is None or value in ("", "None", "none", "null") else convert(value)

    return convert_or_none
