"""Run the HTTP application at a socket."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from glm3.entrypoints.serving.address import Address

__all__ = ["HttpServer"]

_IDLE_SECONDS = 30
_FLUSH_SECONDS = 5


class HttpServer:
    """Serve an application; see :class:`glm3.entrypoints.serving.frontend.Frontend`.

    Connections on which nothing is asked for ``idle_seconds`` are closed.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, idle_seconds: int = _IDLE_SECONDS) -> None:
        # At level debug it would write every chunk, and so every answer, to the log.
        logging.getLogger("sse_starlette").setLevel(logging.INFO)
        self._listener = listener
        host, port = listener.getsockname()[:2]
        self.address = Address(host, port)
        config = uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=idle_seconds,
            timeout_graceful_shutdown=_FLUSH_SECONDS,
        )
        self._server = _Server(config)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def serve(self) -> None:
        await self._server.serve([self._listener])

    def stop(self) -> None:
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Leave signals to the process, which drains the engine first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Connection(H11Protocol):
    """Close connections on which nobody asks anything from the start, as idle ones are later.

    A request whose head comes in drops has as long as one that does not come at all.
    """

    _head_due: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head(self.loop.time() + self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_due = None
        elif self.timeout_keep_alive_task is None:
            self._wait_for_head(self._head_due or self.loop.time() + self.timeout_keep_alive)

    def _wait_for_head(self, due: float) -> None:
        self._head_due = due
        self.timeout_keep_alive_task = self.loop.call_at(due, self.timeout_keep_alive_handler)
