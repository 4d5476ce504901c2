"""The memory of this process."""

from __future__ import annotations

import resource

__all__ = ["peak_memory"]


def peak_memory() -> int:
    """Return the most bytes that this process ever had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
