"""Port: watch an engine at work, for metrics."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

__all__ = ["EngineObserver", "EngineStats", "Silent"]


@frozen(kw_only=True)
class EngineStats:
    """What an engine holds at one moment.

    ``kv_tokens`` of ``kv_capacity`` have blocks of the cache, those of ended conversations included.
    """

    running: int
    waiting: int
    slots: int
    kv_tokens: int
    kv_capacity: int


class EngineObserver(Protocol):
    """Told from the engine's thread; must return at once and not raise."""

    def started(self, prompt_tokens: int, cached_tokens: int, waited: float) -> None:
        """Take note of a request that got its row ``waited`` seconds after it was submitted."""
        ...

    def first_token(self, seconds: float) -> None:
        """Take note of a request's first token, so many seconds after it was submitted."""
        ...

    def stepped(self, rows: int, prompt_tokens: int, new_tokens: int, seconds: float) -> None:
        """Take note of one call of the model, over ``rows`` rows, that took so many seconds."""
        ...

    def ended(self, outcome: str, completion_tokens: int, seconds: float) -> None:
        """Take note of a request's end: ``stop``, ``length``, ``cancelled`` or ``failed``."""
        ...


class Silent:
    """Watch nothing."""

    def started(self, prompt_tokens: int, cached_tokens: int, waited: float) -> None:
        """See :class:`EngineObserver`."""

    def first_token(self, seconds: float) -> None:
        """See :class:`EngineObserver`."""

    def stepped(self, rows: int, prompt_tokens: int, new_tokens: int, seconds: float) -> None:
        """See :class:`EngineObserver`."""

    def ended(self, outcome: str, completion_tokens: int, seconds: float) -> None:
        """See :class:`EngineObserver`."""
