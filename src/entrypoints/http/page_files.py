"""The chat page: static files, and the headers that confine them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

__all__ = ["PAGE_HEADERS", "page_routes"]

FOLDER = Path(__file__).with_name("page")

_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    # No text becomes markup or a program, even by a mistake in the page's own scripts.
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for again after an upgrade; unchanged files are not sent again
}


def page_routes() -> list[BaseRoute]:
    """Return the routes of the page: ``/``, and what it loads under ``/page``.

    The files hold nothing that needs a token; whoever asks the model through them does.
    """
    files = _PageFiles(directory=FOLDER)

    async def index(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    return [Route("/", index), Mount("/page", files)]


class _PageFiles(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(PAGE_HEADERS)
        return response
