"""Errors in the shape of OpenAI's API."""

from __future__ import annotations

from math import ceil
from typing import Any

from starlette.responses import JSONResponse

from glm3.application.serving.problem import Problem, ProblemKind

__all__ = ["error_object", "error_response", "plain_error", "status_of"]

_CODES: dict[ProblemKind, tuple[int, str, str | None]] = {
    ProblemKind.INVALID: (400, "invalid_request_error", None),
    ProblemKind.CONTEXT_LENGTH: (400, "invalid_request_error", "context_length_exceeded"),
    ProblemKind.ACCESS_DENIED: (401, "authentication_error", "invalid_api_key"),
    ProblemKind.UNKNOWN_MODEL: (404, "invalid_request_error", "model_not_found"),
    ProblemKind.UNKNOWN_SESSION: (404, "invalid_request_error", "session_not_found"),
    ProblemKind.OVERLOADED: (429, "rate_limit_error", "overloaded"),
    ProblemKind.INTERNAL: (500, "server_error", "internal_error"),
    ProblemKind.UNAVAILABLE: (503, "server_error", "unavailable"),
    ProblemKind.TIME_LIMIT: (504, "server_error", "time_limit"),
}


def status_of(problem: Problem) -> int:
    """Return the HTTP status."""
    return _CODES[problem.kind][0]


def error_object(problem: Problem) -> dict[str, Any]:
    """Return the body: OpenAI's own fields, and every fault where there are several."""
    _, type_, code = _CODES[problem.kind]
    param = problem.faults[0].field if problem.faults else None
    error: dict[str, Any] = {"message": problem.message, "type": type_, "param": param, "code": code}
    if len(problem.faults) > 1:
        error["faults"] = [{"param": fault.field, "message": fault.message} for fault in problem.faults]
    return {"error": error}


def error_response(problem: Problem) -> JSONResponse:
    """Return the whole response."""
    headers: dict[str, str] = {}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, ceil(problem.retry_after)))
    if problem.kind is ProblemKind.ACCESS_DENIED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_object(problem), status_of(problem), headers)


def plain_error(status: int, message: str) -> JSONResponse:
    """Return the response to what is wrong with the HTTP request itself."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status)
