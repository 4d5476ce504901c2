"""Call the chat service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from glm3.application.serving.records import ServedModel, Tokenized, ToolChoice, ToolMode
from glm3.domain.conversation import Message, Role, ToolSpec
from glm3.domain.errors import Glm3Error
from glm3.entrypoints.client.answers import Completions, DeltaStream, completions_of
from glm3.entrypoints.client.errors import error_of
from glm3.entrypoints.client.options import ChatOptions
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from glm3.entrypoints.grpc.glm3.v1.chat_pb2_grpc import ChatServiceStub
from glm3.entrypoints.grpc.messages import ROLES, write_messages

__all__ = ["ChatClient", "Session"]

Messages = str | Message | Sequence[Message]
Response = TypeVar("Response")

_KEEPALIVE_MS = 60_000
_MODES = {
    ToolMode.AUTO: chat_pb2.ToolChoice.MODE_AUTO,
    ToolMode.NONE: chat_pb2.ToolChoice.MODE_NONE,
    ToolMode.REQUIRED: chat_pb2.ToolChoice.MODE_REQUIRED,
}


class ChatClient:
    """A connection to one server; any number of threads may use it.

    Messages are a dialogue, or one text that the user says. Every method raises the
    :class:`glm3.domain.errors.Glm3Error` that the server had; :class:`OverloadedError` and
    :class:`UnavailableError` say in ``retry_after`` when to ask again.

    Args:
        address: ``HOST:PORT``.
        token: shown with every call.
        root_certificates: PEM of the authorities that may vouch for the server; with it, or with ``tls``, the
            connection is encrypted. ``tls`` alone trusts the authorities that gRPC knows.
        certificate, key: PEM of what the client shows to a server that demands it.
        timeout: seconds a call may take; None means the server's own limit.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        root_certificates: bytes | None = None,
        certificate: bytes | None = None,
        key: bytes | None = None,
        tls: bool = False,
        timeout: float | None = None,
    ) -> None:
        options = [("grpc.keepalive_time_ms", _KEEPALIVE_MS), ("grpc.max_receive_message_length", -1)]
        if tls or root_certificates or certificate:
            credentials = grpc.ssl_channel_credentials(root_certificates, key, certificate)
            self._channel = grpc.secure_channel(address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._stub = ChatServiceStub(self._channel)
        self._timeout = timeout
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)

    def chat(
        self,
        messages: Messages,
        options: ChatOptions | None = None,
        *,
        tools: Iterable[ToolSpec] = (),
        tool_choice: ToolChoice | None = None,
        choices: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> DeltaStream:
        """Return the deltas of the answer to a dialogue, as they come."""
        request = chat_pb2.ChatRequest(
            messages=_messages(messages),
            options=_options(options),
            tools=map(_tool, tools),
            tool_choice=_choice(tool_choice),
            choices=choices,
            model=model or "",
        )
        return DeltaStream(self._stub.Chat(request, **self._settings(timeout)))

    def complete(
        self,
        prompts: str | Sequence[str | Sequence[int]],
        options: ChatOptions | None = None,
        *,
        choices: int | None = None,
        echo: bool = False,
        model: str | None = None,
        timeout: float | None = None,
    ) -> Completions:
        """Return continuations of texts, or of ids that are taken as they are."""
        given = [prompts] if isinstance(prompts, str) else prompts
        request = chat_pb2.CompleteRequest(
            prompts=map(_prompt, given),
            options=_options(options),
            choices=choices,
            echo=echo,
            model=model or "",
        )
        return completions_of(self._call(self._stub.Complete, request, timeout))

    def session(self, messages: Messages = (), *, tools: Iterable[ToolSpec] = ()) -> Session:
        """Begin a dialogue that the server keeps; a text is its system message."""
        opening = [Message(Role.SYSTEM, messages)] if isinstance(messages, str) else messages
        request = chat_pb2.CreateSessionRequest(messages=_messages(opening), tools=map(_tool, tools))
        return Session(self, self._call(self._stub.CreateSession, request).session.id)

    def tokenize(self, text: str) -> Tokenized:
        """Return the ids of a text alone, and the text of each."""
        response = self._call(self._stub.Tokenize, chat_pb2.TokenizeRequest(text=text))
        return Tokenized(tuple(response.ids), tuple(response.pieces))

    def count_tokens(self, messages: Messages, *, tools: Iterable[ToolSpec] = ()) -> int:
        """Return how many tokens the prompt of a dialogue has."""
        request = chat_pb2.CountTokensRequest(messages=_messages(messages), tools=map(_tool, tools))
        return self._call(self._stub.CountTokens, request).count

    def models(self) -> tuple[ServedModel, ...]:
        """Return what can be asked."""
        response = self._call(self._stub.ListModels, chat_pb2.ListModelsRequest())
        return tuple(
            ServedModel(tuple(one.names), one.created, one.context_tokens) for one in response.models
        )

    def close(self) -> None:
        """End the connection, and every call on it."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _settings(self, timeout: float | None) -> dict[str, Any]:
        return {"metadata": self._metadata, "timeout": self._timeout if timeout is None else timeout}

    def _call(
        self, method: Callable[..., Response], request: object, timeout: float | None = None
    ) -> Response:
        try:
            return method(request, **self._settings(timeout))
        except grpc.RpcError as error:
            raise error_of(error) from None


class Session:
    """A dialogue kept by the server; leaving a ``with`` block deletes it."""

    def __init__(self, client: ChatClient, session_id: str) -> None:
        self._client = client
        self.id = session_id

    def chat(
        self,
        messages: Messages,
        options: ChatOptions | None = None,
        *,
        tool_choice: ToolChoice | None = None,
        timeout: float | None = None,
    ) -> DeltaStream:
        """Add turns and return the deltas of the answer, which becomes part of the session at its end."""
        request = chat_pb2.SessionChatRequest(
            session_id=self.id,
            messages=_messages(messages),
            options=_options(options),
            tool_choice=_choice(tool_choice),
        )
        return DeltaStream(self._client._stub.SessionChat(request, **self._client._settings(timeout)))

    def messages(self) -> tuple[Message, ...]:
        """Return the dialogue so far."""
        request = chat_pb2.GetSessionRequest(session_id=self.id)
        response = self._client._call(self._client._stub.GetSession, request)
        return tuple(Message(ROLES[one.role], one.content, one.metadata) for one in response.session.messages)

    def delete(self) -> None:
        """Let the server forget the session."""
        request = chat_pb2.DeleteSessionRequest(session_id=self.id)
        self._client._call(self._client._stub.DeleteSession, request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.delete()
        except Glm3Error:
            if error is None:  # otherwise that one says more
                raise


def _messages(given: Messages) -> list[chat_pb2.Message]:
    if isinstance(given, str):
        given = Message(Role.USER, given)
    return write_messages([given] if isinstance(given, Message) else given)


def _options(options: ChatOptions | None) -> chat_pb2.GenerationOptions:
    return (options or ChatOptions()).message()


def _tool(tool: ToolSpec) -> chat_pb2.Tool:
    parameters = tool.definition.get("parameters")
    return chat_pb2.Tool(
        name=tool.name,
        description=tool.definition.get("description", ""),
        parameters_json="" if parameters is None else json.dumps(parameters, ensure_ascii=False),
    )


def _choice(choice: ToolChoice | None) -> chat_pb2.ToolChoice | None:
    return None if choice is None else chat_pb2.ToolChoice(mode=_MODES[choice.mode], name=choice.name or "")


def _prompt(prompt: str | Sequence[int]) -> chat_pb2.Prompt:
    if isinstance(prompt, str):
        return chat_pb2.Prompt(text=prompt)
    return chat_pb2.Prompt(ids=chat_pb2.TokenIds(ids=prompt))
