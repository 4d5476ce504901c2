"""The server's description of itself, as OpenAPI 3.1 has it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from glm3._version import __version__
from glm3.entrypoints.http.openapi_schemas import SCHEMAS, ref

__all__ = ["document", "openapi"]

_FAILURES = {
    "400": "The request is wrong; the error names the field.",
    "401": "No token, or an unknown one.",
    "404": "No such model is served.",
    "408": "The body does not come in time.",
    "413": "The body is too large.",
    "415": "The body is not declared as JSON.",
    "429": "The queue is full, or the client asks too often; Retry-After says when to ask again.",
    "500": "The model failed on this request.",
    "503": "The model loads, or the server is about to stop.",
    "504": "Not complete within the server's time limit.",
}
_ASKING = ("400", "401", "404", "408", "413", "415", "429", "500", "503", "504")


def document() -> dict[str, Any]:
    """Return the whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "glm3",
            "version": __version__,
            "description": "ChatGLM3 behind OpenAI's API. In requests null is the same as no field; an "
            "unknown field is an error. What a schema allows is refused with 400 where fields contradict "
            "each other, or exceed what the server was started with.",
        },
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
        "paths": {
            "/v1/chat/completions": {
                "post": _operation("Answer a dialogue", "ChatRequest", "ChatCompletion", "ChatChunk")
            },
            "/v1/completions": {
                "post": _operation("Continue texts", "CompletionRequest", "Completion", "Completion")
            },
            "/tokenize": {
                "post": _operation(
                    "Count and show the tokens of a text or dialogue", "TokenizeRequest", "Tokens"
                )
            },
            "/v1/models": {"get": _reading("Name what is served", "Models", "401", "503")},
            "/v1/models/{name}": {
                "get": {
                    **_reading("Describe a model", "Model", "401", "404", "503"),
                    "parameters": [
                        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
                    ],
                }
            },
            "/health": {"get": {**_reading("Say that the process lives", "Status"), "security": []}},
            "/ready": {"get": {**_reading("Say whether the model can be asked", "Status"), "security": []}},
            "/metrics": {
                "get": {
                    "summary": "Numbers for Prometheus",
                    "responses": {
                        "200": {"description": "Text.", "content": {"text/plain": {}}},
                        **_errors("401"),
                    },
                }
            },
        },
    }


async def openapi(request: Request) -> JSONResponse:  # noqa: ARG001  # a handler takes it
    """``GET /openapi.json``."""
    return JSONResponse(document())


def _operation(summary: str, body: str, answer: str, chunk: str | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": ref(answer)}}
    if chunk is not None:
        content["text/event-stream"] = {
            "schema": {"type": "string", "description": f"Events whose data are {chunk}, then [DONE]."}
        }
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref(body)}}},
        "responses": {"200": {"description": "The answer.", "content": content}, **_errors(*_ASKING)},
    }


def _reading(summary: str, answer: str, *failures: str) -> dict[str, Any]:
    found = {"description": "The answer.", "content": {"application/json": {"schema": ref(answer)}}}
    responses = {"200": found, **_errors(*failures)}
    if answer == "Status" and summary.startswith("Say whether"):
        responses["503"] = {**found, "description": "It loads, or is about to stop."}
    return {"summary": summary, "responses": responses}


def _errors(*statuses: str) -> dict[str, Any]:
    content = {"application/json": {"schema": ref("Error")}}
    return {status: {"description": _FAILURES[status], "content": content} for status in statuses}
