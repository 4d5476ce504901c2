"""Read a request's body, within bounds."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from glm3.entrypoints.serving.fields import parse_object

__all__ = ["read_object"]


async def read_object(request: Request, most_bytes: int, seconds: float) -> dict[str, Any]:
    """Return the JSON object a request carries.

    Raises:
        HTTPException: it is too large, does not come within ``seconds``, or is not declared as JSON. A page
            of another origin can send anything else without asking, so nothing else is read.
        InvalidInputError: it is no JSON object.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "the body must be sent as Content-Type: application/json")
    too_large = HTTPException(413, f"the body is larger than {most_bytes} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most_bytes:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {seconds:g} s") from None
    return parse_object(bytes(body))
