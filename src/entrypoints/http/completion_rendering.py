"""Write continuations in the form of OpenAI's older API, whole or as chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import time
from typing import Any
from uuid import uuid4

from glm3.application.serving.records import Delta, FinishDelta, TextDelta, TokenLogprob, UsageDelta
from glm3.domain.conversation import FinishReason
from glm3.entrypoints.http.rendering import finish_reason, usage_object

__all__ = ["CompletionChunks", "text_completion"]


class CompletionChunks:
    """Turn deltas into the chunks of one streamed completion."""

    def __init__(self, model: str, *, include_usage: bool, logprobs: bool) -> None:
        self._head = _head(model)
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._offsets: dict[int, int] = {}

    def beginning(self) -> Iterator[dict[str, Any]]:
        """Yield what comes before the first delta: nothing."""
        yield from ()

    def of(self, delta: Delta) -> dict[str, Any] | None:
        """Return the chunk of a delta; not every delta has one."""
        match delta:
            case TextDelta(choice, text, tokens):
                offset = self._offsets.get(choice, 0)
                self._offsets[choice] = offset + len(text)
                return self._chunk(choice, text, _logprobs(tokens, offset) if self._logprobs else None)
            case FinishDelta(choice, reason):
                return self._chunk(choice, "", None, finish_reason(reason))
            case UsageDelta() if self._include_usage:
                return {**self._head, "choices": [], "usage": usage_object(delta)}
        return None

    def _chunk(self, choice: int, text: str, logprobs: object, reason: str | None = None) -> dict[str, Any]:
        body = {
            **self._head,
            "choices": [{"index": choice, "text": text, "logprobs": logprobs, "finish_reason": reason}],
        }
        return {**body, "usage": None} if self._include_usage else body


def text_completion(model: str, deltas: Sequence[Delta], choices: int, *, logprobs: bool) -> dict[str, Any]:
    """Return the whole answer that deltas make."""
    return {
        **_head(model),
        "choices": [_choice(index, deltas, logprobs) for index in range(choices)],
        "usage": next((usage_object(delta) for delta in deltas if isinstance(delta, UsageDelta)), None),
    }


def _head(model: str) -> dict[str, Any]:
    return {"id": f"cmpl-{uuid4().hex}", "object": "text_completion", "created": int(time()), "model": model}


def _choice(index: int, deltas: Sequence[Delta], logprobs: bool) -> dict[str, Any]:
    texts = [delta for delta in deltas if isinstance(delta, TextDelta) and delta.choice == index]
    ends = [delta.reason for delta in deltas if isinstance(delta, FinishDelta) and delta.choice == index]
    tokens = [token for delta in texts for token in delta.logprobs]
    return {
        "index": index,
        "text": "".join(delta.text for delta in texts),
        "logprobs": _logprobs(tokens, 0) if logprobs else None,
        "finish_reason": finish_reason(ends[0] if ends else FinishReason.STOP),
    }


def _logprobs(tokens: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{top.text: top.logprob for top in token.top} for token in tokens],
        "text_offset": offsets,
    }
