"""Converters of single configuration values; each raises ValueError with what it expects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from glm3.domain.coercion import as_float, as_int, as_text

__all__ = [
    "at_least",
    "choice",
    "integer_at_least",
    "integer_or_off",
    "is_placeholder",
    "memory_size",
    "parallel_mode",
    "positive_number",
    "probability",
    "texts",
]

_PARALLEL_MODES = ("data_parallel", "semi_auto_parallel", "auto_parallel", "hybrid_parallel")


def choice(*names: str, aliases: Mapping[str, str] | None = None) -> Callable[[object], str]:
    """Accept one of the names, or another spelling of one."""
    spellings = {name: name for name in names} | dict(aliases or {})

    def convert(value: object) -> str:
        if isinstance(value, str) and value in spellings:
            return spellings[value]
        raise ValueError(f"one of {', '.join(spellings)}" if len(spellings) > 1 else names[0])

    return convert


def integer_at_least(minimum: int) -> Callable[[object], int]:
    """Accept an integer not below ``minimum``."""

    def convert(value: object) -> int:
        try:
            number = as_int(value)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise ValueError(f"an integer of at least {minimum}")
        return number

    return convert


def integer_or_off(value: object) -> int:
    """Accept a positive integer, or -1."""
    try:
        number = as_int(value)
    except ValueError:
        number = 0
    if number != -1 and number < 1:
        raise ValueError("a positive integer, or -1")
    return number


def at_least(minimum: float) -> Callable[[object], float]:
    """Accept a number not below ``minimum``."""

    def convert(value: object) -> float:
        number = as_float(value)
        if number < minimum:
            raise ValueError(f"a number of at least {minimum:g}")
        return number

    return convert


def positive_number(value: object) -> float:
    """Accept a number above 0."""
    number = as_float(value)
    if number <= 0:
        raise ValueError("a number above 0")
    return number


def probability(value: object) -> float:
    """Accept a number from 0 up to, not including, 1."""
    number = as_float(value)
    if not 0 <= number < 1:
        raise ValueError("a number from 0 up to, not including, 1")
    return number


def texts(value: object) -> tuple[str, ...]:
    """Accept a list of texts; null is the empty list."""
    if value is None or value == "None":
        return ()
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError('a list of texts, for example ["content", "summary"]')


def memory_size(value: object) -> str:
    """Accept what MindSpore does: a number followed by GB."""
    text = as_text(value) if isinstance(value, str) else ""
    if not re.fullmatch(r"\d+(\.\d+)?GB", text):
        raise ValueError("a size in GB, for example 59GB")
    return text


def parallel_mode(value: object) -> int:
    """Accept 0 to 3 or MindSpore's name of the mode."""
    if isinstance(value, str) and value in _PARALLEL_MODES:
        return _PARALLEL_MODES.index(value)
    try:
        number = as_int(value)
    except ValueError:
        number = -1
    if not 0 <= number < len(_PARALLEL_MODES):
        raise ValueError("0 (data), 1 (semi-auto), 2 (auto) or 3 (hybrid)")
    return number


def is_placeholder(value: Any) -> bool:
    """Tell whether a text is one of the model card's fill-me-in paths, as ``/path/to/tokenizer.model``."""
    return isinstance(value, str) and bool(re.match(r"/?path/to(/|$)|your[-_]path", value))
