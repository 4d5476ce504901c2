"""Handlers of the routes that ask the model."""

from __future__ import annotations

from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.answers import AnswerStream
from glm3.application.serving.lifecycle import Lifecycle
from glm3.application.serving.records import Delta, ServedModel
from glm3.domain.errors import InvalidInputError, UnknownModelError
from glm3.entrypoints.http.body import read_object
from glm3.entrypoints.http.completion_rendering import CompletionChunks, text_completion
from glm3.entrypoints.http.rendering import ChatChunks, chat_completion
from glm3.entrypoints.http.requests import read_chat, read_completion
from glm3.entrypoints.http.settings import HttpSettings
from glm3.entrypoints.http.streaming import AnswerResponse, unless_gone
from glm3.entrypoints.serving.fields import Fields
from glm3.entrypoints.serving.request_log import log_delta

__all__ = ["ChatRoutes"]

_log = structlog.get_logger(__name__)


class ChatRoutes:
    """Translate between HTTP and the service."""

    def __init__(self, lifecycle: Lifecycle, access: AccessPolicy, settings: HttpSettings) -> None:
        self._lifecycle = lifecycle
        self._access = access
        self._settings = settings

    async def chat(self, request: Request) -> ASGIApp:
        """``POST /v1/chat/completions``."""
        service = self._lifecycle.service()
        self._access.admit(request.state.client)
        body = await self._body(request)
        call = read_chat(body, service.defaults)
        stream = await service.chat(call.request, request.state.client)
        model, count = service.model.names[0], call.request.choices
        logprobs, legacy = call.request.options.logprobs, call.legacy_functions
        if call.stream:
            chunks = ChatChunks(
                model, count, include_usage=call.include_usage, legacy=legacy, logprobs=logprobs
            )
            return AnswerResponse(stream, chunks, self._settings.send_seconds, self._see)
        deltas = await self._collect(request, stream)
        return JSONResponse(chat_completion(model, deltas, count, legacy=legacy, logprobs=logprobs))

    async def complete(self, request: Request) -> ASGIApp:
        """``POST /v1/completions``."""
        service = self._lifecycle.service()
        self._access.admit(request.state.client)
        call = read_completion(await self._body(request), service.defaults)
        stream = await service.complete(call.request, request.state.client)
        model, logprobs = service.model.names[0], call.request.options.logprobs
        if call.stream:
            chunks = CompletionChunks(model, include_usage=call.include_usage, logprobs=logprobs)
            return AnswerResponse(stream, chunks, self._settings.send_seconds, self._see)
        deltas = await self._collect(request, stream)
        count = call.request.choices * len(call.request.prompts)
        return JSONResponse(text_completion(model, deltas, count, logprobs=logprobs))

    async def models(self, request: Request) -> ASGIApp:  # noqa: ARG002  # a handler takes it
        """``GET /v1/models``."""
        models = self._lifecycle.service().list_models()
        entries = [_model_object(name, model) for model in models for name in model.names]
        return JSONResponse({"object": "list", "data": entries})

    async def model(self, request: Request) -> ASGIApp:
        """``GET /v1/models/{name}``."""
        name = request.path_params["name"]
        for model in self._lifecycle.service().list_models():
            if name in model.names:
                return JSONResponse(_model_object(name, model))
        raise UnknownModelError("no such model is served here", field="model", found=repr(name[:100]))

    async def tokenize(self, request: Request) -> ASGIApp:
        """``POST /tokenize``: ids and pieces of a text, or the length of a dialogue's prompt."""
        service = self._lifecycle.service()
        self._access.admit(request.state.client)
        body = await self._body(request)
        if "messages" in body:
            call = read_chat(body)
            return JSONResponse({"count": await service.count_tokens(call.request)})
        fields = Fields(body)
        text = fields.text("text") if "text" in body else fields.text("prompt")
        fields.ignore("model", "prompt")
        fields.refuse_unknown()
        fields.raise_faults()
        if text is None:
            raise InvalidInputError("nothing to tokenize", field="text", expected="text, or messages")
        result = await service.tokenize(text)
        return JSONResponse(
            {"count": len(result.ids), "tokens": list(result.ids), "pieces": list(result.pieces)}
        )

    async def _body(self, request: Request) -> dict[str, Any]:
        body = await read_object(request, self._settings.body_bytes, self._settings.body_seconds)
        if self._settings.log_content:
            _log.info("asked", body=body)
        return body

    async def _collect(self, request: Request, stream: AnswerStream) -> list[Delta]:
        async def collect() -> list[Delta]:
            deltas = []
            async for delta in stream:
                self._see(delta)
                deltas.append(delta)
            return deltas

        with stream:
            return await unless_gone(request, collect())

    def _see(self, delta: Delta) -> None:
        log_delta(delta, content=self._settings.log_content)


def _model_object(name: str, model: ServedModel) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "glm3",
        "context_length": model.context_tokens,
    }
