"""The command line ``glm3``."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 used wrongly, 130 interrupted."""
    from glm3.entrypoints.cli.app import run

    return run(arguments)
