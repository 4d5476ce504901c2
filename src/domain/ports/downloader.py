"""Port: fetch one file from the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

__all__ = ["Downloader", "Progress"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the total, None while it is unknown."""


class Downloader(Protocol):
    """Fetch files whole and verified, or not at all."""

    def fetch(
        self,
        url: str,
        target: Path,
        *,
        size: int | None = None,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Return ``target``, downloaded from ``url`` unless it is there already.

        A file that is there is taken as complete if it has the ``size`` or ``sha256`` where one is known.

        Raises:
            DownloadError: the network is forbidden or failed, or what came is not what was expected.
            StorageError: there is no space or no permission.
        """
        ...
