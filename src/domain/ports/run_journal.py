"""Port: where the story of a training run is kept or shown."""

from __future__ import annotations

from typing import Protocol

from glm3.domain.training.run_events import RunEvent

__all__ = ["RunJournal"]


class RunJournal(Protocol):
    """Take the events of one run in order; a run that goes on later begins with RunStarted again."""

    def record(self, event: RunEvent) -> None:
        """Keep or show one event; what is kept survives the death of the process.

        Raises:
            StorageError: the file system refused.
        """
        ...

    def close(self) -> None:
        """Finish; nothing is recorded afterwards. Closing twice is allowed."""
        ...
