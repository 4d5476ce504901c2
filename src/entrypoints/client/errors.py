"""What a failed call means, as the errors of this project."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from glm3.domain.errors import (
    AccessDeniedError,
    BackendError,
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
from glm3.entrypoints.grpc.status import DETAILS_KEY

__all__ = ["error_of"]

_RETRY_SECONDS = 1.0
_CLASSES: dict[grpc.StatusCode, type[Glm3Error]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInputError,
    grpc.StatusCode.UNAUTHENTICATED: AccessDeniedError,
    grpc.StatusCode.NOT_FOUND: UnknownModelError,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimeLimitError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
}
_BY_REASON: dict[str, type[Glm3Error]] = {
    "CONTEXT_LENGTH": ContextLengthError,
    "UNKNOWN_SESSION": UnknownSessionError,
}


def error_of(failed: grpc.RpcError) -> Glm3Error:
    """Return the error that the server, or the way to it, had."""
    call: Any = failed  # a grpc.Call as well
    status = _status(call.trailing_metadata() or ())
    reason, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        for known in (reason, bad, retry):
            detail.Unpack(known)
    message = call.details() or call.code().name
    kind = _BY_REASON.get(reason.reason) or _CLASSES.get(call.code(), BackendError)
    if issubclass(kind, UnavailableError):
        known_delay = retry.HasField("retry_delay")
        delay = retry.retry_delay.ToNanoseconds() / 1e9 if known_delay else _RETRY_SECONDS
        return kind(message, retry_after=delay)
    if not bad.field_violations:
        return kind(message)
    faults = [kind(one.description, field=one.field or None) for one in bad.field_violations]
    return faults[0] if len(faults) == 1 else MultipleFaultsError("the request has several faults", faults)


def _status(metadata: Any) -> Status:
    status = Status()
    for key, value in metadata:
        if key == DETAILS_KEY:
            try:
                status.ParseFromString(value)
            except DecodeError:  # a proxy's own; the code and the message are still there
                return Status()
    return status
