"""A run journal that keeps the events as they came."""

from __future__ import annotations

from typing import TypeVar

from glm3.domain.training.run_events import RunEvent

__all__ = ["MemoryJournal"]

Event = TypeVar("Event")


class MemoryJournal:
    """Keep every event in ``events``."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []
        self.closed = False

    def record(self, event: RunEvent) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`."""
        self.events.append(event)

    def close(self) -> None:
        """See :class:`glm3.domain.ports.run_journal.RunJournal`."""
        self.closed = True

    def of(self, kind: type[Event]) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]
