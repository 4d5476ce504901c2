"""One HTTP request as a record that travels between processes, and the ASGI call that answers it there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from attrs import frozen
from starlette.types import ASGIApp, Message

__all__ = ["HttpCall", "answer"]


@frozen
class HttpCall:
    """A request with its whole body: method, path, query, headers and the client's address."""

    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    client: tuple[str, int] | None
    body: bytes

    def scope(self) -> dict[str, Any]:
        """Return what an ASGI application is told."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "query_string": self.query,
            "headers": [list(pair) for pair in self.headers],
            "client": self.client,
            "server": None,
        }


async def answer(app: ASGIApp, call: HttpCall) -> AsyncIterator[Message]:
    """Yield the messages with which ``app`` answers; closing the iterator means that the client is gone."""
    messages: asyncio.Queue[Message | None] = asyncio.Queue(maxsize=1)  # a slow reader slows its answer
    gone = asyncio.Event()
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": call.body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if not gone.is_set():
            await messages.put(message)

    async def run() -> None:
        try:
            await app(call.scope(), receive, send)
        finally:
            if not gone.is_set():
                await messages.put(None)

    task = asyncio.create_task(run())
    try:
        while (message := await messages.get()) is not None:
            yield message
        await task
    finally:
        gone.set()
        if not messages.empty():
            messages.get_nowait()  # lets the one go that waits for room; nothing is put behind it
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
