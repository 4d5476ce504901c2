"""What every server writes about a request, under one id."""

from __future__ import annotations

import re
from uuid import uuid4

import structlog

from glm3.application.serving.problem import Problem, problem_of
from glm3.application.serving.records import Delta, TextDelta, ToolCallDelta, UsageDelta

__all__ = ["begin_request", "explain", "log_delta"]

_log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


def begin_request(given: str) -> str:
    """Return the id of a request, and put it into every log line from here on.

    ``given`` is what the client calls it; where that is no proper id, it gets a new one.
    """
    request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    return request_id


def explain(error: Exception) -> Problem:
    """Return what to tell the caller, and log what is not for it."""
    problem = problem_of(error)
    if problem.kind.is_ours:
        _log.error("request failed", exc_info=error)
    return problem


def log_delta(delta: Delta, *, content: bool) -> None:
    """Log the counted tokens of an answer, and what it says only if ``content`` may be logged."""
    if isinstance(delta, UsageDelta):
        _log.info(
            "answered",
            prompt_tokens=delta.usage.prompt_tokens,
            cached_tokens=delta.cached_tokens,
            completion_tokens=delta.usage.completion_tokens,
        )
    elif content and isinstance(delta, TextDelta | ToolCallDelta):
        _log.info("said", delta=str(delta))
