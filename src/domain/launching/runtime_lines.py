"""Which lines of a rank are MindSpore's own talk, that nobody at the terminal waits for."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["is_runtime_talk", "wants_runtime_talk"]

_TALK = re.compile(r"\[(?:INFO|DEBUG)\] [A-Z_]+\(\d+,[0-9a-fx]+,[^)]*\):")
_LEVELS_OF_TALK = ("0", "1")


def is_runtime_talk(line: str) -> bool:
    """Tell whether MindSpore's runtime printed a line, and says that all is well.

    Threads of its communication print some while a process ends, whatever ``GLOG_v`` says: by then the level
    is forgotten.
    """
    return _TALK.match(line) is not None


def wants_runtime_talk(environment: Mapping[str, str]) -> bool:
    """Tell whether the user has asked MindSpore for these lines, by ``GLOG_v``."""
    return environment.get("GLOG_v") in _LEVELS_OF_TALK
