"""What happens around every call: its id, who calls, its log line, its count, and what an error becomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
import structlog
from google.protobuf import message_factory
from google.protobuf.message import Message

from glm3.adapters.prometheus.serving_metrics import ServingMetrics
from glm3.application.serving.access import AccessPolicy
from glm3.domain.errors import TimeLimitError
from glm3.entrypoints.grpc.decoding import decode
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from glm3.entrypoints.grpc.status import DETAILS_KEY, code_of, details_of, message_of
from glm3.entrypoints.serving.request_log import begin_request, explain

__all__ = ["CLIENT", "CallScope"]

CLIENT: ContextVar[str] = ContextVar("client")
"""Who makes the call that is being answered."""

_log = structlog.get_logger(__name__)

_SERVICE = chat_pb2.DESCRIPTOR.services_by_name["ChatService"]
_KINDS: dict[str, type[Message]] = {
    f"/{_SERVICE.full_name}/{method.name}": message_factory.GetMessageClass(method.input_type)
    for method in _SERVICE.methods
}
_HEALTH = "/grpc.health.v1.Health/"

Context = grpc.aio.ServicerContext[Any, Any]


class CallScope(grpc.aio.ServerInterceptor):
    """Let known callers in, give each call an id, and turn whatever goes wrong into a status.

    The id is taken from the metadata ``x-request-id`` where the client sends a proper one; it comes back in
    the initial metadata and is in every log line of the call. Health is told to anybody.

    Args:
        access: knows the callers.
        metrics: count the calls.
        send_seconds: how long a reader may take for one message of a stream before it is given up.
    """

    def __init__(self, access: AccessPolicy, metrics: ServingMetrics, send_seconds: float) -> None:
        self._access = access
        self._metrics = metrics
        self._send_seconds = send_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        known = handler is not None
        return self._wrapped(handler, handler_call_details.method) if known else None

    def _wrapped(self, handler: Any, method: str) -> Any:
        kind = _KINDS.get(method)

        def read(request: Any) -> Any:
            return request if kind is None else decode(kind, request)

        async def unary(request: Any, context: Context) -> Any:
            async with self._call(method, context):
                return await handler.unary_unary(read(request), context)

        async def streaming(request: Any, context: Context) -> None:
            async with self._call(method, context):
                behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
                answers = behavior(read(request), context)
                if hasattr(answers, "__aiter__"):
                    await self._send(answers, context)
                else:
                    await answers

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        # What cannot be decoded must be an error like others, so decoding is done inside the call.
        return make(
            streaming if handler.response_streaming else unary,
            request_deserializer=handler.request_deserializer if kind is None else None,
            response_serializer=handler.response_serializer,
        )

    async def _send(self, answers: AsyncGenerator[Any, None], context: Context) -> None:
        async with aclosing(answers):  # so that what still runs for it ends now
            async for answer in answers:
                try:
                    async with asyncio.timeout(self._send_seconds):
                        await context.write(answer)
                except TimeoutError:
                    raise TimeLimitError("the client does not read its answer") from None

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[None]:
        metadata = {
            key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
        }
        request_id = begin_request(metadata.get("x-request-id", ""))
        code = grpc.StatusCode.CANCELLED
        started = perf_counter()
        try:
            await context.send_initial_metadata((("x-request-id", request_id),))
            if not method.startswith(_HEALTH):
                client = self._access.identify(_bearer(metadata), _host(context.peer()))
                CLIENT.set(client)
                structlog.contextvars.bind_contextvars(client=client)
            yield
            code = grpc.StatusCode.OK
        except grpc.aio.AbortError:
            code = _code(context.code())
            raise
        except asyncio.CancelledError:
            left: float | None = context.time_remaining()
            if left is not None and left <= 0:
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise
        except Exception as error:
            problem = explain(error)
            code = code_of(problem)
            await context.abort(code, message_of(problem), ((DETAILS_KEY, details_of(problem)),))
        finally:
            self._metrics.called(method.rpartition("/")[2], code.name)
            _log.info("request", method=method, code=code.name, seconds=round(perf_counter() - started, 4))


def _code(given: grpc.StatusCode | int) -> grpc.StatusCode:
    """Return a code that gRPC's own context may hold as a number."""
    return next(code for code in grpc.StatusCode if given in (code, code.value[0]))


def _bearer(metadata: dict[str, str]) -> str | None:
    scheme, _, token = metadata.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _host(peer: str) -> str:
    """Return the host of a peer as gRPC names it: ``ipv4:HOST:PORT``, ``ipv6:[HOST]:PORT``, ``unix:``."""
    return unquote(peer).partition(":")[2].rpartition(":")[0] or peer
