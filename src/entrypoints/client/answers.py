"""What the server answers, as records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

import grpc
from attrs import frozen

from glm3.application.serving.records import (
    Delta,
    FinishDelta,
    TextDelta,
    ThoughtDelta,
    TokenLogprob,
    ToolCallDelta,
    UsageDelta,
)
from glm3.domain.conversation import FinishReason, ToolCall, Usage
from glm3.domain.errors import BackendError
from glm3.entrypoints.client.errors import error_of
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2

__all__ = ["Completion", "Completions", "DeltaStream", "completions_of"]

_REASONS = {
    chat_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    chat_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    chat_pb2.FINISH_REASON_TOOL_CALLS: FinishReason.TOOL_CALLS,
}


@frozen
class Completion:
    """One continuation; ``logprobs`` are its tokens, where they were asked for."""

    text: str
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] = ()


@frozen
class Completions:
    """The continuations of all prompts, those of the first prompt first, and the counted tokens."""

    completions: tuple[Completion, ...]
    usage: UsageDelta


class _Response(Protocol):
    @property
    def delta(self) -> chat_pb2.Delta: ...


class _Call(Protocol):
    """A call that streams, as gRPC has it."""

    def __next__(self) -> _Response: ...

    def cancel(self) -> bool: ...


class DeltaStream(Iterator[Delta]):
    """The deltas of an answer, as they come; usage is the last.

    Leaving a ``with`` block, :meth:`cancel`, or dropping the stream ends the answer on the server. Iterating
    raises the :class:`glm3.domain.errors.Glm3Error` that the answer failed with, and just ends after
    :meth:`cancel`.
    """

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._cancelled = False

    def cancel(self) -> None:
        """End the answer before the model's next step."""
        self._cancelled = True
        self._call.cancel()

    def __next__(self) -> Delta:
        try:
            return _delta(next(self._call).delta)
        except grpc.RpcError as error:
            if self._cancelled:
                raise StopIteration from None
            raise error_of(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


def completions_of(response: chat_pb2.CompleteResponse) -> Completions:
    """Return continued texts as records."""
    completions = tuple(
        Completion(one.text, _reason(one.finish_reason), _tokens(one.logprobs))
        for one in response.completions
    )
    return Completions(completions, _usage(response.usage))


def _delta(message: chat_pb2.Delta) -> Delta:
    choice = message.choice
    match message.WhichOneof("delta"):
        case "text":
            return TextDelta(choice, message.text.text, _tokens(message.text.logprobs))
        case "thought":
            return ThoughtDelta(choice, message.thought.text)
        case "tool_call":
            call = ToolCall(message.tool_call.name, json.loads(message.tool_call.arguments_json or "{}"))
            return ToolCallDelta(choice, call)
        case "finish":
            finish = message.finish
            return FinishDelta(choice, _reason(finish.reason), finish.tool_call_error or None)
        case "usage":
            return _usage(message.usage)
    raise BackendError("the server sent a delta of a kind that this client does not know")


def _reason(number: chat_pb2.FinishReason.ValueType) -> FinishReason:
    return _REASONS.get(number, FinishReason.STOP)


def _usage(usage: chat_pb2.Usage) -> UsageDelta:
    return UsageDelta(Usage(usage.prompt_tokens, usage.completion_tokens), usage.cached_tokens)


def _tokens(given: Iterable[chat_pb2.TokenLogprob]) -> tuple[TokenLogprob, ...]:
    def token(one: chat_pb2.TokenLogprob) -> TokenLogprob:
        top: Sequence[chat_pb2.TokenLogprob] = one.top
        return TokenLogprob(one.id, one.text, one.logprob, tuple(map(token, top)))

    return tuple(map(token, given))
