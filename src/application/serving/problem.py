"""What an error means to a caller: the one place where servers look it up."""

from __future__ import annotations

from enum import Enum, auto

from attrs import frozen

from glm3.domain.errors import (
    AccessDeniedError,
    ContextLengthError,
    Glm3Error,
    InvalidInputError,
    MultipleFaultsError,
    OverloadedError,
    TimeLimitError,
    UnavailableError,
    UnknownModelError,
    UnknownSessionError,
)

__all__ = ["Fault", "Problem", "ProblemKind", "problem_of"]


class ProblemKind(Enum):
    """Kinds of failure that protocols have a code of their own for."""

    INVALID = auto()
    CONTEXT_LENGTH = auto()
    ACCESS_DENIED = auto()
    UNKNOWN_MODEL = auto()
    UNKNOWN_SESSION = auto()
    OVERLOADED = auto()
    UNAVAILABLE = auto()
    TIME_LIMIT = auto()
    INTERNAL = auto()

    @property
    def is_ours(self) -> bool:
        """Whether the service is at fault, and not its caller or its load."""
        return self is ProblemKind.INTERNAL


@frozen
class Fault:
    """One thing that is wrong with a request, and the field it is in."""

    field: str | None
    message: str


@frozen
class Problem:
    """A failure as a caller may see it; ``retry_after`` is in seconds."""

    kind: ProblemKind
    message: str
    faults: tuple[Fault, ...] = ()
    retry_after: float | None = None


_KINDS = (
    (AccessDeniedError, ProblemKind.ACCESS_DENIED),
    (UnknownModelError, ProblemKind.UNKNOWN_MODEL),
    (UnknownSessionError, ProblemKind.UNKNOWN_SESSION),
    (OverloadedError, ProblemKind.OVERLOADED),
    (UnavailableError, ProblemKind.UNAVAILABLE),
    (TimeLimitError, ProblemKind.TIME_LIMIT),
    (ContextLengthError, ProblemKind.CONTEXT_LENGTH),
    (InvalidInputError, ProblemKind.INVALID),
)


def problem_of(error: BaseException) -> Problem:
    """Return what a caller is told about ``error``; of what went wrong inside, no more than that it did."""
    kind = next((kind for class_, kind in _KINDS if isinstance(error, class_)), ProblemKind.INTERNAL)
    if kind is ProblemKind.INTERNAL or not isinstance(error, Glm3Error):
        return Problem(ProblemKind.INTERNAL, "the request failed inside the service; its log says why")
    faults = error.faults if isinstance(error, MultipleFaultsError) else (error,)
    retry_after = error.retry_after if isinstance(error, UnavailableError) else None
    return Problem(kind, str(error), tuple(Fault(f.field, _without_field(f)) for f in faults), retry_after)


def _without_field(error: Glm3Error) -> str:
    return str(error).removeprefix(f"{error.field}: ")
