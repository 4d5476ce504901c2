"""Write answers in the form of OpenAI's API, whole or as chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from time import time
from typing import Any
from uuid import uuid4

from glm3.application.serving.records import (
    Delta,
    FinishDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    UsageDelta,
)
from glm3.domain.conversation import FinishReason, ToolCall

__all__ = ["ChatChunks", "chat_completion", "usage_object"]


class ChatChunks:
    """Turn deltas into the chunks of one streamed chat completion."""

    def __init__(
        self, model: str, choices: int, *, include_usage: bool, legacy: bool, logprobs: bool
    ) -> None:
        self._head = {
            "id": f"chatcmpl-{uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time()),
            "model": model,
        }
        self._choices = choices
        self._include_usage = include_usage
        self._legacy = legacy
        self._logprobs = logprobs

    def beginning(self) -> Iterator[dict[str, Any]]:
        """Yield what comes before the first delta: each answer's role."""
        for choice in range(self._choices):
            yield self._chunk(choice, {"role": "assistant", "content": ""})

    def of(self, delta: Delta) -> dict[str, Any] | None:
        """Return the chunk of a delta; not every delta has one."""
        match delta:
            case TextDelta(choice, text, logprobs):
                shown = {"content": content_logprobs(logprobs)} if self._logprobs else None
                return self._chunk(choice, {"content": text}, logprobs=shown)
            case ToolCallDelta(choice, call):
                if self._legacy:
                    return self._chunk(choice, {"function_call": function_object(call)})
                return self._chunk(choice, {"tool_calls": [{"index": 0, **tool_call_object(call)}]})
            case FinishDelta(choice, reason):
                return self._chunk(choice, {}, finish_reason(reason, legacy=self._legacy))
            case UsageDelta() if self._include_usage:
                return {**self._head, "choices": [], "usage": usage_object(delta)}
        return None

    def _chunk(
        self, choice: int, delta: dict[str, Any], reason: str | None = None, logprobs: object = None
    ) -> dict[str, Any]:
        body = {
            **self._head,
            "choices": [{"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}],
        }
        return {**body, "usage": None} if self._include_usage else body


def chat_completion(
    model: str, deltas: Sequence[Delta], choices: int, *, legacy: bool, logprobs: bool
) -> dict[str, Any]:
    """Return the whole answer that deltas make."""
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion",
        "created": int(time()),
        "model": model,
        "choices": [_choice(index, deltas, legacy=legacy, logprobs=logprobs) for index in range(choices)],
        "usage": next((usage_object(delta) for delta in deltas if isinstance(delta, UsageDelta)), None),
    }


def _choice(index: int, deltas: Sequence[Delta], *, legacy: bool, logprobs: bool) -> dict[str, Any]:
    texts = [delta for delta in deltas if isinstance(delta, TextDelta) and delta.choice == index]
    content = "".join(delta.text for delta in texts)
    message: dict[str, Any] = {"role": "assistant", "content": content}
    reason = FinishReason.STOP
    for delta in deltas:
        if isinstance(delta, ToolCallDelta) and delta.choice == index:
            message["content"] = content or None
            if legacy:
                message["function_call"] = function_object(delta.call)
            else:
                message["tool_calls"] = [tool_call_object(delta.call)]
        elif isinstance(delta, FinishDelta) and delta.choice == index:
            reason = delta.reason
    tokens = [token for delta in texts for token in delta.logprobs]
    return {
        "index": index,
        "message": message,
        "logprobs": {"content": content_logprobs(tokens)} if logprobs else None,
        "finish_reason": finish_reason(reason, legacy=legacy),
    }


def finish_reason(reason: FinishReason, *, legacy: bool = False) -> str:
    """Return OpenAI's word; the older form of calls has one of its own."""
    return "function_call" if legacy and reason is FinishReason.TOOL_CALLS else reason.value


def tool_call_object(call: ToolCall) -> dict[str, Any]:
    return {"id": f"call_{uuid4().hex[:24]}", "type": "function", "function": function_object(call)}


def function_object(call: ToolCall) -> dict[str, str]:
    return {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)}


def content_logprobs(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    return [{**_token(token), "top_logprobs": list(map(_token, token.top))} for token in tokens]


def usage_object(delta: UsageDelta) -> dict[str, Any]:
    """Return the counted tokens."""
    return {
        "prompt_tokens": delta.usage.prompt_tokens,
        "completion_tokens": delta.usage.completion_tokens,
        "total_tokens": delta.usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": delta.cached_tokens},
    }


def _token(token: TokenLogprob) -> dict[str, Any]:
    # A piece that is part of a character has no text of its own, and its bytes are not known here.
    whole = "\N{REPLACEMENT CHARACTER}" not in token.text
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.text.encode()) if whole else None,
    }
