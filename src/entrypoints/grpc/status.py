"""Errors as gRPC has them: a code, a message, and details that programs can read."""

from __future__ import annotations

import re
from urllib.parse import quote

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from glm3.application.serving.problem import Problem, ProblemKind

__all__ = ["DETAILS_KEY", "DOMAIN", "code_of", "details_of", "message_of"]

DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata in which every gRPC library looks for details."""

DOMAIN = "glm3.v1"

_CODES = {
    ProblemKind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    ProblemKind.CONTEXT_LENGTH: grpc.StatusCode.INVALID_ARGUMENT,
    ProblemKind.ACCESS_DENIED: grpc.StatusCode.UNAUTHENTICATED,
    ProblemKind.UNKNOWN_MODEL: grpc.StatusCode.NOT_FOUND,
    ProblemKind.UNKNOWN_SESSION: grpc.StatusCode.NOT_FOUND,
    ProblemKind.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ProblemKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ProblemKind.TIME_LIMIT: grpc.StatusCode.DEADLINE_EXCEEDED,
    ProblemKind.INTERNAL: grpc.StatusCode.INTERNAL,
}

# What the service calls otherwise than the messages do.
_FIELDS = {
    "max_tokens": "options.max_tokens",
    "stop": "options.stop",
    "top_logprobs": "options.top_logprobs",
    "n": "choices",
    "prompt": "prompts[0]",
}

# Clients take 8 KiB of metadata in all; there the message is percent-encoded, and the details are in base64.
_MESSAGE_BYTES = 2000
_DETAILS_BYTES = 3000
_DESCRIPTION = 300  # characters


def code_of(problem: Problem) -> grpc.StatusCode:
    """Return the code."""
    return _CODES[problem.kind]


def message_of(problem: Problem) -> str:
    """Return the message, cut to what clients take."""
    text = problem.message[:_MESSAGE_BYTES]
    while len(quote(text)) > _MESSAGE_BYTES:
        text = text[: len(text) * 4 // 5]
    return text if text == problem.message else f"{text}…"


def details_of(problem: Problem) -> bytes:
    """Return a serialised ``google.rpc.Status``; of very many faults only the first ones are in it."""
    status = Status(code=code_of(problem).value[0], message=message_of(problem))
    _add(status, ErrorInfo(reason=problem.kind.name, domain=DOMAIN))
    if problem.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(round(problem.retry_after * 1e9))
        _add(status, RetryInfo(retry_delay=delay))
    if code_of(problem) is grpc.StatusCode.INVALID_ARGUMENT:
        bad = BadRequest()
        for fault in problem.faults:
            bad.field_violations.add(
                field=_field(fault.field or ""), description=fault.message[:_DESCRIPTION]
            )
            if bad.ByteSize() > _DETAILS_BYTES:
                del bad.field_violations[-1]
                break
        _add(status, bad)
    content: bytes = status.SerializeToString()
    return content


def _add(status: Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _field(name: str) -> str:
    return _FIELDS.get(name) or re.sub(r"^prompt\[", "prompts[", name)
