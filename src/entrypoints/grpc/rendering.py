"""Write answers as messages of chat.proto."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from glm3.application.serving.records import (
    Delta,
    FinishDelta,
    ServedModel,
    TextDelta,
    ThoughtDelta,
    TokenLogprob,
    ToolCallDelta,
    UsageDelta,
)
from glm3.application.serving.sessions import Session
from glm3.domain.conversation import FinishReason
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from glm3.entrypoints.grpc.messages import write_messages

__all__ = ["completions", "delta_message", "model_message", "session_message"]

_REASONS = {
    FinishReason.STOP: chat_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: chat_pb2.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: chat_pb2.FINISH_REASON_TOOL_CALLS,
}


def delta_message(delta: Delta) -> chat_pb2.Delta:
    """Return a delta as it is sent."""
    match delta:
        case TextDelta(choice, text, logprobs):
            said = chat_pb2.TextDelta(text=text, logprobs=map(_token, logprobs))
            return chat_pb2.Delta(choice=choice, text=said)
        case ThoughtDelta(choice, text):
            return chat_pb2.Delta(choice=choice, thought=chat_pb2.ThoughtDelta(text=text))
        case ToolCallDelta(choice, call):
            arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
            message = chat_pb2.ToolCall(name=call.name, arguments_json=arguments)
            return chat_pb2.Delta(choice=choice, tool_call=message)
        case FinishDelta(choice, reason, error):
            finish = chat_pb2.Finish(reason=_REASONS[reason], tool_call_error=error or "")
            return chat_pb2.Delta(choice=choice, finish=finish)
        case UsageDelta():
            return chat_pb2.Delta(usage=_usage(delta))


def completions(deltas: Iterable[Delta], count: int) -> chat_pb2.CompleteResponse:
    """Return the whole answer that the deltas of ``count`` continuations make."""
    response = chat_pb2.CompleteResponse()
    for _ in range(count):
        response.completions.add()
    texts: list[list[str]] = [[] for _ in range(count)]
    for delta in deltas:
        if isinstance(delta, TextDelta):
            texts[delta.choice].append(delta.text)
            response.completions[delta.choice].logprobs.extend(map(_token, delta.logprobs))
        elif isinstance(delta, FinishDelta):
            response.completions[delta.choice].finish_reason = _REASONS[delta.reason]
        elif isinstance(delta, UsageDelta):
            response.usage.CopyFrom(_usage(delta))
    for completion, parts in zip(response.completions, texts, strict=True):
        completion.text = "".join(parts)
    return response


def model_message(model: ServedModel) -> chat_pb2.Model:
    """Return what is served."""
    return chat_pb2.Model(names=model.names, created=model.created, context_tokens=model.context_tokens)


def session_message(session: Session, idle_seconds: float) -> chat_pb2.Session:
    """Return a session with its dialogue."""
    return chat_pb2.Session(
        id=session.id, idle_seconds=idle_seconds, messages=write_messages(session.messages)
    )


def _token(token: TokenLogprob) -> chat_pb2.TokenLogprob:
    top: Sequence[TokenLogprob] = token.top
    return chat_pb2.TokenLogprob(id=token.id, text=token.text, logprob=token.logprob, top=map(_token, top))


def _usage(delta: UsageDelta) -> chat_pb2.Usage:
    return chat_pb2.Usage(
        prompt_tokens=delta.usage.prompt_tokens,
        completion_tokens=delta.usage.completion_tokens,
        cached_tokens=delta.cached_tokens,
    )
