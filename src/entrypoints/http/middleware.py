"""What happens around every request: its id, its log line, its count, and the check of its Host."""

from __future__ import annotations

import re
from time import perf_counter

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm3.adapters.prometheus.serving_metrics import ServingMetrics
from glm3.entrypoints.http.errors import plain_error
from glm3.entrypoints.serving.request_log import begin_request

__all__ = ["LoopbackHosts", "RequestScope"]

_log = structlog.get_logger(__name__)

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
CLIENT_GONE = 499
"""The status in logs and metrics of a request whose client went away first; nobody receives it."""


class RequestScope:
    """Give each request an id, taken from ``X-Request-Id`` where the client sends a proper one.

    The id is in the response's header and in every log line of the request.
    """

    def __init__(self, app: ASGIApp, metrics: ServingMetrics, routes: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = begin_request(given)
        status = CLIENT_GONE
        started = perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.responded(route, status)
            _log.info(
                "request",
                method=scope["method"],
                path=scope["path"][:200],
                status=status,
                seconds=round(perf_counter() - started, 4),
            )


class LoopbackHosts:
    """Refuse other Host names than this machine's own.

    Without tokens, a page of another site could otherwise have its name resolve to this machine and then
    talk to the server as if it were its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "").lower()
            if re.sub(r":\d+$", "", host) not in _LOOPBACK_NAMES:
                response = plain_error(421, "this server answers to localhost only; start it with a token")
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
