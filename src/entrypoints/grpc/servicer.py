"""Translate between gRPC and the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import structlog
from google.protobuf.message import Message as ProtoMessage

from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.lifecycle import Lifecycle
from glm3.application.serving.records import Delta, FinishDelta
from glm3.application.serving.service import ChatService
from glm3.application.serving.sessions import SessionStore
from glm3.domain.conversation import Message
from glm3.domain.errors import TimeLimitError
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from glm3.entrypoints.grpc.glm3.v1.chat_pb2_grpc import ChatServiceServicer
from glm3.entrypoints.grpc.rendering import completions, delta_message, model_message, session_message
from glm3.entrypoints.grpc.requests import read_chat, read_completion, read_count, read_opening, read_turn
from glm3.entrypoints.grpc.scope import CLIENT
from glm3.entrypoints.grpc.settings import GrpcSettings
from glm3.entrypoints.serving.request_log import log_delta

__all__ = ["ChatServicer"]

_log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class ChatServicer(ChatServiceServicer):
    """The methods of ``glm3.v1.ChatService``, for callers that :class:`CallScope` has let in."""

    def __init__(
        self, lifecycle: Lifecycle, access: AccessPolicy, sessions: SessionStore, settings: GrpcSettings
    ) -> None:
        self._lifecycle = lifecycle
        self._access = access
        self._sessions = sessions
        self._settings = settings

    async def Chat(
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> AsyncIterator[chat_pb2.ChatResponse]:
        service = self._admitted(request)
        wanted = read_chat(request, _time_left(context), service.defaults)
        stream = await service.chat(wanted, CLIENT.get())
        with stream:
            async for delta in stream:
                self._see(delta)
                yield chat_pb2.ChatResponse(delta=delta_message(delta))

    async def Complete(
        self, request: chat_pb2.CompleteRequest, context: Context
    ) -> chat_pb2.CompleteResponse:
        service = self._admitted(request)
        wanted = read_completion(request, _time_left(context), service.defaults)
        deltas: list[Delta] = []
        with await service.complete(wanted, CLIENT.get()) as stream:
            async for delta in stream:
                self._see(delta)
                deltas.append(delta)
        return completions(deltas, wanted.choices * len(wanted.prompts))

    async def Tokenize(
        self, request: chat_pb2.TokenizeRequest, context: Context
    ) -> chat_pb2.TokenizeResponse:
        service = self._admitted(request)
        service.require_model(request.model or None)
        result = await service.tokenize(request.text)
        return chat_pb2.TokenizeResponse(ids=result.ids, pieces=result.pieces)

    async def CountTokens(
        self, request: chat_pb2.CountTokensRequest, context: Context
    ) -> chat_pb2.CountTokensResponse:
        service = self._admitted(request)
        return chat_pb2.CountTokensResponse(count=await service.count_tokens(read_count(request)))

    async def ListModels(
        self, request: chat_pb2.ListModelsRequest, context: Context
    ) -> chat_pb2.ListModelsResponse:
        models = self._lifecycle.service().list_models()
        return chat_pb2.ListModelsResponse(models=map(model_message, models))

    async def CreateSession(
        self, request: chat_pb2.CreateSessionRequest, context: Context
    ) -> chat_pb2.CreateSessionResponse:
        self._admitted(request).require_model(request.model or None)
        session = self._sessions.create(CLIENT.get(), *read_opening(request))
        return chat_pb2.CreateSessionResponse(
            session=session_message(session, self._sessions.limits.idle_seconds)
        )

    async def SessionChat(
        self, request: chat_pb2.SessionChatRequest, context: Context
    ) -> AsyncIterator[chat_pb2.SessionChatResponse]:
        service = self._admitted(request)
        client = CLIENT.get()
        session = self._sessions.get(client, request.session_id)
        added, wanted = read_turn(request, session, _time_left(context), service.defaults)
        said: tuple[Message, ...] = ()
        with self._sessions.turn(client, request.session_id, added):
            with await service.chat(wanted, client) as stream:
                async for delta in stream:
                    self._see(delta)
                    if isinstance(delta, FinishDelta):
                        said = delta.messages
                    yield chat_pb2.SessionChatResponse(delta=delta_message(delta))
            self._sessions.extend(session, [*added, *said])

    async def GetSession(
        self, request: chat_pb2.GetSessionRequest, context: Context
    ) -> chat_pb2.GetSessionResponse:
        session = self._sessions.get(CLIENT.get(), request.session_id)
        return chat_pb2.GetSessionResponse(
            session=session_message(session, self._sessions.limits.idle_seconds)
        )

    async def DeleteSession(
        self, request: chat_pb2.DeleteSessionRequest, context: Context
    ) -> chat_pb2.DeleteSessionResponse:
        self._sessions.delete(CLIENT.get(), request.session_id)
        return chat_pb2.DeleteSessionResponse()

    def _admitted(self, request: ProtoMessage) -> ChatService:
        """Return the service to a client that may ask it now."""
        service = self._lifecycle.service()
        self._access.admit(CLIENT.get())
        if self._settings.log_content:
            _log.info("asked", body=str(request))
        return service

    def _see(self, delta: Delta) -> None:
        log_delta(delta, content=self._settings.log_content)


def _time_left(context: Context) -> float | None:
    """Return the seconds until the call's deadline.

    Raises:
        TimeLimitError: it has passed.
    """
    left: float | None = context.time_remaining()
    if left is not None and left <= 0:
        raise TimeLimitError("the deadline has passed")
    return left
