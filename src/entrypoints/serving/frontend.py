"""What a server of one protocol offers to the process that runs it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Frontend"]


class Frontend(Protocol):
    """A server over a :class:`glm3.application.serving.lifecycle.Lifecycle`.

    It answers from the start: while the model loads, and while the service drains, with an error that says
    so.
    """

    @property
    def url(self) -> str:
        """Where it listens, for people."""
        ...

    async def serve(self) -> None:
        """Serve until :meth:`stop` was called and what is left to send is sent."""
        ...

    def stop(self) -> None:
        """Take no more connections, and end soon."""
        ...
