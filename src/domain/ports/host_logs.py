"""Port: gather the logs of drivers and runtimes into one file to send."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from attrs import frozen

__all__ = ["CollectedLogs", "HostLogs"]


@frozen
class CollectedLogs:
    """The archive, what it holds, and how many files there was no room for."""

    path: Path
    files: tuple[str, ...]
    left_out: int


class HostLogs(Protocol):
    """The log folders of one kind of machine."""

    def collect(self, target: Path, report: bytes) -> CollectedLogs:
        """Write a new archive of ``report`` and the newest logs.

        Raises:
            StorageError: the file system refused.
        """
        ...
