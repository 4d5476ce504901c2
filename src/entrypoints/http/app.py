"""The routes of the HTTP server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from attrs import frozen
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from glm3.adapters.prometheus.serving_metrics import ServingMetrics
from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.lifecycle import Lifecycle, Phase
from glm3.entrypoints.http.chat_routes import ChatRoutes
from glm3.entrypoints.http.errors import error_response, plain_error
from glm3.entrypoints.http.middleware import CLIENT_GONE, LoopbackHosts, RequestScope
from glm3.entrypoints.http.openapi import openapi
from glm3.entrypoints.http.page_files import page_routes
from glm3.entrypoints.http.settings import HttpSettings
from glm3.entrypoints.http.streaming import ClientGoneError
from glm3.entrypoints.serving.request_log import explain

__all__ = ["build_app"]

_log = structlog.get_logger(__name__)

Handler = Callable[[Request], Awaitable[Any]]


def build_app(
    lifecycle: Lifecycle, access: AccessPolicy, metrics: ServingMetrics, settings: HttpSettings
) -> Starlette:
    """Return the application; it answers before the model is loaded, and says so."""
    chat = ChatRoutes(lifecycle, access, settings)
    guard = _Guard(access)
    routes: list[BaseRoute] = [
        Route("/v1/chat/completions", guard(chat.chat), methods=["POST"]),
        Route("/v1/completions", guard(chat.complete), methods=["POST"]),
        Route("/v1/models", guard(chat.models)),
        Route("/v1/models/{name:path}", guard(chat.model)),
        Route("/tokenize", guard(chat.tokenize), methods=["POST"]),
        Route("/health", _health),
        Route("/ready", _ready(lifecycle)),
        Route("/metrics", guard(_metrics(metrics))),
        Route("/openapi.json", guard(openapi)),
        *page_routes(),
    ]
    known = frozenset(route.path for route in routes if isinstance(route, Route))
    middleware = [Middleware(RequestScope, metrics, known)]
    if settings.loopback_only:
        middleware.append(Middleware(LoopbackHosts))
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
                expose_headers=["X-Request-Id", "Retry-After"],
            )
        )
    return Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: _http_error})


@frozen
class _Guard:
    """Let known callers in, and turn whatever goes wrong into a response."""

    access: AccessPolicy

    def __call__(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> ASGIApp:
            try:
                peer = request.client.host if request.client else "unknown"
                client = self.access.identify(_bearer(request), peer)
                request.state.client = client
                structlog.contextvars.bind_contextvars(client=client)
                response: ASGIApp = await handler(request)
                return response
            except HTTPException:
                raise
            except ClientGoneError:
                return Response(status_code=CLIENT_GONE)
            except Exception as error:
                return error_response(explain(error))

        return guarded


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def _health(request: Request) -> Response:  # noqa: ARG001  # a handler takes it
    """Say that the process lives."""
    return JSONResponse({"status": "ok"})


def _ready(lifecycle: Lifecycle) -> Handler:
    async def ready(request: Request) -> Response:  # noqa: ARG001  # a handler takes it
        is_ready = lifecycle.phase is Phase.READY
        return JSONResponse({"status": lifecycle.phase.value}, 200 if is_ready else 503)

    return ready


def _metrics(metrics: ServingMetrics) -> Handler:
    async def render(request: Request) -> Response:  # noqa: ARG001  # a handler takes it
        return Response(metrics.render(), media_type=metrics.content_type)

    return render


async def _http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001  # a handler takes it
    if not isinstance(error, HTTPException):
        raise error
    response = plain_error(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response
