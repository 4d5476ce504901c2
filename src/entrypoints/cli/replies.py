"""Replies as JSON."""

from __future__ import annotations

from typing import Any

from glm3.domain.conversation import Reply

__all__ = ["reply_to_json"]


def reply_to_json(reply: Reply) -> dict[str, Any]:
    """Return everything a reply says; what it does not have is null."""
    call, usage = reply.tool_call, reply.usage
    return {
        "text": reply.text,
        "thought": reply.thought,
        "tool_call": None if call is None else {"name": call.name, "arguments": dict(call.arguments)},
        "tool_call_error": reply.tool_call_error,
        "code": reply.code,
        "finish_reason": reply.finish_reason.value,
        "usage": None
        if usage is None
        else {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        },
    }
