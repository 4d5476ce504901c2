"""A chat session that reads out given replies, without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.scripted_model import ScriptedModel, reply_scores
from glm3.application.chat import ChatSession
from glm3.application.tools.caller import ToolCaller


def scripted_chat(
    *replies: str,
    seq_length: int = 4096,
    system: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    trim: bool = False,
    caller: ToolCaller | None = None,
) -> ChatSession:
    """Return a session whose model answers ``replies`` in turn; a call's reply ends as calls do."""
    tokenizer = ByteTokenizer()
    special = tokenizer.special_tokens
    ids = [
        [*tokenizer.encode(reply), special.observation if "tool_call(" in reply else special.user]
        for reply in replies
    ]
    scores = reply_scores(ids, special.vocab_size, start_id=special.assistant, end_id=special.user)
    model = ScriptedModel(scores, special.vocab_size, seq_length=seq_length)
    return ChatSession(model, tokenizer, system=system, tools=tools, trim=trim, caller=caller)
