"""A job on one machine, and how it ended."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from glm3.domain.ports.process_runner import ProcessSpec

__all__ = ["Failure", "Job", "JobResult", "Patience"]


@frozen(kw_only=True)
class Job:
    """What to start. The ``helpers`` serve the ``members`` and are ended after them."""

    members: tuple[ProcessSpec, ...]
    helpers: tuple[ProcessSpec, ...] = ()


@frozen(kw_only=True)
class Patience:
    """How long to wait, in seconds, before a job is ended.

    ``stop`` is for members that were told to end because another failed, before they are killed; ``last``
    for the last members after the first has ended well; ``silence`` for any member to print a line, where
    None is for ever.
    """

    stop: float = 10.0
    last: float | None = 600.0
    silence: float | None = None


@frozen(kw_only=True)
class Failure:
    """The member that failed first: its exit code, why the job ended, the last lines it printed."""

    name: str
    code: int
    reason: str
    tail: tuple[str, ...]
    log: Path | None = None

    def lines(self) -> list[str]:
        """Tell it to people."""
        told = [f"{self.name} {self.reason}; the job was ended"]
        if self.tail:
            told += [f"the end of its log{f', {self.log}' if self.log else ''}:"]
            told += [f"  {line}" for line in self.tail]
        return told


@frozen(kw_only=True)
class JobResult:
    """How a job ended.

    ``interrupted`` says that it was asked to end before anything failed. ``ending_seconds`` passed from the
    failure until every process was gone.
    """

    failure: Failure | None
    interrupted: bool
    ending_seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """The failed member's own; 130 if the job was interrupted and did not end well."""
        if self.failure is None:
            return 0
        return 130 if self.interrupted else self.failure.code
