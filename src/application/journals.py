"""A run journal made of several."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from attrs import frozen

from glm3.domain.ports.run_journal import RunJournal
from glm3.domain.training.run_events import RunEvent

__all__ = ["Journals"]


@frozen
class Journals:
    """Tell each of them every event, in order; all are closed even where one fails to."""

    journals: Sequence[RunJournal]

    def record(self, event: RunEvent) -> None:
        for journal in self.journals:
            journal.record(event)

    def close(self) -> None:
        with ExitStack() as stack:
            for journal in self.journals:
                stack.callback(journal.close)
