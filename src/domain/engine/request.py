"""What the engine is asked, and what it tells while it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import field, frozen

from glm3.domain.conversation import FinishReason
from glm3.domain.errors import Glm3Error
from glm3.domain.generation import GenerationConfig, StopCheck

__all__ = ["Cancelled", "EngineRequest", "Event", "Failed", "Listener", "Produced", "Started", "is_last"]


def _as_ids(ids: Sequence[int]) -> tuple[int, ...]:
    return tuple(map(int, ids))


def _as_sequences(sequences: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(_as_ids, sequences))


@frozen(kw_only=True)
class EngineRequest:
    """One row to generate.

    Args:
        prompt: ids, not empty.
        options: limits, choice of tokens, stop ids; one beam.
        client: whom it counts for when turns are shared out.
        choice: which of several answers to one prompt it is, part of the random seed.
        top_logprobs: how many likeliest alternatives to report with each token; needs ``options.logprobs``.
        time_limit: seconds from submission within which the answer must be complete.
        openings: the answer must begin with one of these sequences of ids; empty leaves it free.
        stop_check: told each id that is no stop id, in the engine's thread; true makes it the last.
    """

    prompt: tuple[int, ...] = field(converter=_as_ids)
    options: GenerationConfig
    client: str = ""
    choice: int = 0
    top_logprobs: int = 0
    time_limit: float | None = None
    openings: tuple[tuple[int, ...], ...] = field(default=(), converter=_as_sequences)
    stop_check: StopCheck | None = None


@frozen
class Started:
    """The request has a row: ``cached_tokens`` of its prompt need no computing."""

    cached_tokens: int


@frozen
class Produced:
    """The next token; the last one carries the finish reason.

    ``top_logprobs`` are the likeliest ids with their log-probabilities, best first.
    """

    id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None


@frozen
class Failed:
    """The request ends here, for this reason."""

    error: Glm3Error


@frozen
class Cancelled:
    """The request ends here because its caller wanted so."""


Event = Started | Produced | Failed | Cancelled
"""Every request ends with exactly one of: a token with a finish reason, a failure, a cancellation."""


def is_last(event: Event) -> bool:
    """Tell whether an event ends its request."""
    if isinstance(event, Produced):
        return event.finish_reason is not None
    return not isinstance(event, Started)


Listener = Callable[[Event], None]
"""Told each event from the engine's thread; must return at once."""
