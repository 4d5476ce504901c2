"""Read what a function's docstring tells a model: what the function does, and what its parameters mean.

Source: the ``Args:`` section of the Google Python style guide.
"""

from __future__ import annotations

import re
from inspect import cleandoc

__all__ = ["read_docstring"]

_SECTION = re.compile(r"(Args|Arguments|Parameters):\s*")
_OTHER_SECTION = re.compile(r"[A-Z][A-Za-z ]*:\s*")
_PARAMETER = re.compile(r"(\s+)\**(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")


def read_docstring(text: str | None) -> tuple[str, dict[str, str]]:
    """Return the first paragraph as one line, and the description of each parameter it lists."""
    lines = cleandoc(text or "").splitlines()
    summary = " ".join(line.strip() for line in _until_blank(lines))
    return summary, _parameters(lines)


def _until_blank(lines: list[str]) -> list[str]:
    ends = (i for i, line in enumerate(lines) if not line.strip() or _SECTION.fullmatch(line))
    return lines[: next(ends, len(lines))]


def _parameters(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    name, indent, inside = "", 0, False
    for line in lines:
        if _OTHER_SECTION.fullmatch(line):
            inside = _SECTION.fullmatch(line) is not None
            name = ""
        elif inside and line.strip():
            depth = len(line) - len(line.lstrip())
            match = _PARAMETER.fullmatch(line)
            if match is not None and (not name or depth <= indent):
                name, indent = match[2], depth
                found[name] = match[3].strip()
            elif name and depth > indent:  # a description that goes on
                found[name] = f"{found[name]} {line.strip()}".strip()
    return found
