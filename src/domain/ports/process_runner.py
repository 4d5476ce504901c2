"""Port: start processes and watch them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeAlias

from attrs import field, frozen

__all__ = [
    "LineRead",
    "Order",
    "ProcessEnded",
    "ProcessEvent",
    "ProcessRunner",
    "ProcessSpec",
    "Woken",
]


class Order(StrEnum):
    """How a process is asked to end."""

    INTERRUPT = "interrupt"
    """As by Ctrl-C: it may finish what it is at, and save."""
    TERMINATE = "terminate"
    """It should clean up and end."""
    KILL = "kill"
    """It ends now, with everything it started."""


@frozen(kw_only=True)
class ProcessSpec:
    """A process to start.

    ``environment`` is laid over the starter's own; None takes a variable away. What the process prints goes
    to ``log``. One that ``takes_orders`` is a launcher elsewhere: it reads them from standard input, where
    the line ``stop`` is INTERRUPT and the end is TERMINATE.
    """

    name: str
    command: tuple[str, ...]
    folder: Path = Path()
    environment: Mapping[str, str | None] = field(factory=dict)
    log: Path | None = None
    takes_orders: bool = False


@frozen
class LineRead:
    """A process printed a line, on whichever stream."""

    name: str
    text: str


@frozen
class ProcessEnded:
    """A process is gone; 128 and the signal's number if it was killed. No line of it follows."""

    name: str
    code: int


@frozen
class Woken:
    """Somebody called ``wake``."""


ProcessEvent: TypeAlias = LineRead | ProcessEnded | Woken


class ProcessRunner(Protocol):
    """Processes by name. None of them outlives the one that started it."""

    def start(self, spec: ProcessSpec) -> None:
        """Start a process; to be called from the main thread.

        Raises:
            MissingFileError: there is no such program or folder.
            StorageError: its log cannot be written.
            BackendError: the system does not start any more processes.
        """
        ...

    def send(self, name: str, order: Order) -> None:
        """Ask a process to end; one that is gone is left alone."""
        ...

    def next_event(self, timeout: float | None = None) -> ProcessEvent | None:
        """Wait for what happens next; None if nothing does within ``timeout`` seconds."""
        ...

    def wake(self) -> None:
        """Let ``next_event`` return; may be called from a signal handler and from any thread."""
        ...
