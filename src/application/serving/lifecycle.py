"""Whether the service can be asked: it is loading first, then ready, and draining before it ends."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from glm3.application.serving.service import ChatService
from glm3.domain.errors import UnavailableError

__all__ = ["Lifecycle", "Phase"]

_LOADING_RETRY_SECONDS = 5.0


class Phase(StrEnum):
    """Where a service is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class Lifecycle:
    """Hold the service once it is there; servers ask it for every request."""

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self._service: ChatService | None = None
        self._listeners: list[Callable[[Phase], None]] = []

    def listen(self, listener: Callable[[Phase], None]) -> None:
        """Tell ``listener`` the phase, now and whenever it changes, from the thread that changes it."""
        self._listeners.append(listener)
        listener(self.phase)

    def ready(self, service: ChatService) -> None:
        """Take requests from now on, unless the end has begun already."""
        self._service = service
        if self.phase is Phase.LOADING:
            self._enter(Phase.READY)

    def drain(self) -> None:
        """Take no more requests; those that run go on."""
        self._enter(Phase.DRAINING)

    def service(self) -> ChatService:
        """Return the service, to ask it something new.

        Raises:
            UnavailableError: it is loading or draining.
        """
        if self.phase is Phase.DRAINING:
            raise UnavailableError("the service is about to stop", hint="ask another instance")
        if self._service is None:
            raise UnavailableError("the model is loading", retry_after=_LOADING_RETRY_SECONDS)
        return self._service

    def loaded(self) -> ChatService | None:
        """Return the service where there is one, whatever the phase."""
        return self._service

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        for listener in self._listeners:
            listener(phase)
