"""Send an answer while it is made, and stop making it when nobody listens any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from glm3.application.serving.answers import AnswerStream
from glm3.application.serving.records import Delta
from glm3.entrypoints.http.errors import error_object
from glm3.entrypoints.serving.request_log import explain

__all__ = ["AnswerResponse", "Chunks", "ClientGoneError", "unless_gone"]

T = TypeVar("T")

PING_SECONDS = 15


class Chunks(Protocol):
    """Write deltas as chunks of one protocol."""

    def beginning(self) -> Any: ...

    def of(self, delta: Delta) -> dict[str, Any] | None: ...


class ClientGoneError(Exception):
    """The client has closed its connection."""


class AnswerResponse:
    """Stream an answer as server-sent events, ended by ``[DONE]``; however it ends, the answer is cancelled.

    Args:
        stream: the answer.
        chunks: write it.
        send_seconds: how long a reader may take for one event before it is given up.
        see: told each delta.
    """

    def __init__(
        self, stream: AnswerStream, chunks: Chunks, send_seconds: float, see: Callable[[Delta], None]
    ) -> None:
        self._stream = stream
        self._chunks = chunks
        self._send_seconds = send_seconds
        self._see = see

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = EventSourceResponse(
            self._events(), ping=PING_SECONDS, sep="\n", send_timeout=self._send_seconds
        )
        with self._stream:
            await response(scope, receive, send)

    async def _events(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks.beginning():
            yield _event(chunk)
        try:
            async for delta in self._stream:
                self._see(delta)
                chunk = self._chunks.of(delta)
                if chunk is not None:
                    yield _event(chunk)
        except Exception as error:
            yield _event(error_object(explain(error)))
        else:
            yield b"data: [DONE]\n\n"


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` does, unless the client goes away first.

    Raises:
        ClientGoneError: it did, and the work is cancelled.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for pending in (task, watch):
            pending.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
