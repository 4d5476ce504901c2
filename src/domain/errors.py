"""Every error this project raises on purpose, as one tree.

An error carries its facts as data (path, line, field, expected, found, hint), so that each entrypoint
can translate it once: exit code, gRPC status, HTTP code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "AccessDeniedError",
    "BackendError",
    "CheckpointError",
    "CommunicationError",
    "ConfigError",
    "ContextLengthError",
    "ConversationError",
    "DownloadError",
    "Glm3Error",
    "InvalidInputError",
    "MissingFileError",
    "MultipleFaultsError",
    "NonFiniteLogitsError",
    "OverloadedError",
    "ParameterMismatchError",
    "StorageError",
    "TimeLimitError",
    "TokenizerError",
    "TrainingError",
    "UnavailableError",
    "UnknownModelError",
    "UnknownSessionError",
    "UsageError",
    "raise_faults",
]


class Glm3Error(Exception):
    """Say what is wrong, where, what was expected, what was found, and what to do about it."""

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else Path(path)
        self.line = line
        self.field = field
        self.expected = expected
        self.found = found
        self.hint = hint

    def __str__(self) -> str:
        where = "" if self.path is None else f"{self.path}:{self.line}: " if self.line else f"{self.path}: "
        what = f"{self.field}: {self.message}" if self.field else self.message
        facts = [
            f"{label} {value}"
            for label, value in (("expected", self.expected), ("found", self.found))
            if value is not None
        ]
        text = where + what + (f" ({', '.join(facts)})" if facts else "")
        return f"{text}\nhint: {self.hint}" if self.hint else text


class InvalidInputError(Glm3Error, ValueError):
    """A value, row or argument breaks a rule of the domain."""


class UsageError(InvalidInputError):
    """The command line or call is put together wrongly."""

    exit_code = 2


class ConfigError(InvalidInputError):
    """A configuration value is unknown, of the wrong type, or contradicts another."""

    exit_code = 2


class MultipleFaultsError(ConfigError):
    """Several faults found in one pass, reported together."""

    def __init__(self, summary: str, faults: Sequence[Glm3Error]) -> None:
        super().__init__(summary)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"- {fault}" for fault in self.faults)])


def raise_faults(summary: str, faults: Sequence[Glm3Error]) -> None:
    """Raise one fault as it is, several as a MultipleFaultsError, none not at all."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise MultipleFaultsError(summary, faults)


class ConversationError(InvalidInputError):
    """Messages are not a legal ChatGLM3 dialogue."""


class ContextLengthError(InvalidInputError):
    """A prompt, or prompt plus answer, does not fit the model's context."""


class TokenizerError(InvalidInputError):
    """A tokenizer file or a token id is not usable."""


class MissingFileError(Glm3Error, FileNotFoundError):
    """A file or folder that is needed does not exist."""

    __str__ = Glm3Error.__str__  # OSError has one of its own


class StorageError(Glm3Error, OSError):
    """The file system refused: no space, no permission, an interrupted write."""

    __str__ = Glm3Error.__str__  # OSError has one of its own


class CheckpointError(InvalidInputError):
    """A weight file is truncated, garbage, or not of the format its name claims."""


class ParameterMismatchError(CheckpointError):
    """Parameters are missing, unexpected or of another shape than the model's.

    ``mis_shaped`` holds ``(name, expected shape, found shape)``.
    """

    def __init__(
        self,
        *,
        path: str | Path | None = None,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        mis_shaped: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]] = (),
        hint: str | None = None,
    ) -> None:
        self.missing, self.unexpected, self.mis_shaped = tuple(missing), tuple(unexpected), tuple(mis_shaped)
        lines = ["the weights do not fit the model"]
        lines += [f"  missing: {name}" for name in self.missing]
        lines += [f"  unexpected: {name}" for name in self.unexpected]
        lines += [f"  {name}: expected {want}, found {got}" for name, want, got in self.mis_shaped]
        super().__init__("\n".join(lines), path=path, hint=hint)


class NonFiniteLogitsError(Glm3Error, ArithmeticError):
    """The model produced NaN or infinite scores."""


class TrainingError(Glm3Error, ArithmeticError):
    """A training run cannot go on: its loss or gradients make no sense any more."""


class DownloadError(Glm3Error, OSError):
    """A download failed, was refused offline, or did not verify."""

    __str__ = Glm3Error.__str__  # OSError has one of its own


class CommunicationError(Glm3Error, RuntimeError):
    """The ranks of a job do not come together: one has ended, is too late, or does something else.

    ``missing`` holds the ranks that the others wait for, as far as it is known.
    """

    def __init__(
        self,
        message: str,
        *,
        missing: Sequence[int] = (),
        field: str | None = None,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        self.missing = tuple(missing)
        super().__init__(message, field=field, expected=expected, found=found, hint=hint)


class BackendError(Glm3Error, RuntimeError):
    """The runtime below (MindSpore, a compiler, a device) is missing or refused."""


class AccessDeniedError(Glm3Error):
    """A caller did not say who it is, or is not known."""


class UnknownModelError(Glm3Error, LookupError):
    """A caller asks for a model that is not served here."""

    __str__ = Glm3Error.__str__  # LookupError quotes its argument


class UnknownSessionError(Glm3Error, LookupError):
    """A caller goes on with a session that is not kept here, or not any more."""

    __str__ = Glm3Error.__str__  # LookupError quotes its argument


class TimeLimitError(Glm3Error, TimeoutError):
    """An answer was not complete in the time it may take."""

    __str__ = Glm3Error.__str__  # OSError has one of its own


class UnavailableError(Glm3Error):
    """The service takes no requests now: it is starting, or about to stop.

    ``retry_after`` is in seconds.
    """

    def __init__(self, message: str, *, retry_after: float = 1.0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class OverloadedError(UnavailableError):
    """Too many requests: the queue is full, or a caller asks more often than it may."""
