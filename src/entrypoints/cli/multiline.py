'''Messages of several lines: a backslash at the end of a line, or a text between """ and """.'''

from __future__ import annotations

__all__ = ["needs_more", "unfold"]

FENCE = '"""'


def needs_more(text: str) -> bool:
    """Tell whether Enter should start a new line instead of sending ``text``."""
    if text.lstrip().startswith(FENCE):
        return text.count(FENCE) < 2
    return text.endswith("\\")


def unfold(text: str) -> str:
    """Return the message that was meant: without fences, without the backslashes at line ends."""
    stripped = text.strip()
    if stripped.startswith(FENCE):
        body = stripped.removeprefix(FENCE)
        return body.partition(FENCE)[0].strip("\n")
    return text.replace("\\\n", "\n").removesuffix("\\")
