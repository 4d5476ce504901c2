"""Read a model's answer: its parts, what a user sees, and the call it asks for. Never raises on content.

An answer is one or more parts separated by ``<|assistant|>``, each a header line and a content, ended by a
stop id. A header that is not blank names a tool, or is ``interpreter`` above code. Reading keeps every id:
each part is decoded in two pieces, as it was encoded, so that re-encoding gives the same ids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from attrs import evolve, frozen

from glm3.domain.conversation import FinishReason, Message, Reply, Role, ToolCall
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.tool_call import fenced_code, format_tool_call, parse_tool_call

__all__ = [
    "INTERPRETER",
    "TRAINING_DATE",
    "call_message",
    "fill_in_date",
    "interpret",
    "names_tool",
    "parse_response",
    "split_parts",
    "visible",
]

INTERPRETER = "interpreter"

TRAINING_DATE = "[[训练时间]]"
"""The placeholder that the model writes for the date of its training; the model card shows 2023年."""
_NAME = re.compile(r"[\w.:/-]{1,128}")


def parse_response(
    ids: Sequence[int], tokenizer: Tokenizer, finish_reason: FinishReason | None = None
) -> Reply:
    """Return what the generated ``ids`` (without the prompt) mean.

    Args:
        ids: the new ids, with or without the stop id; what follows a stop id is ignored.
        tokenizer: the model's own.
        finish_reason: why generation ended; by default a stop id means stop and none means cut off.
    """
    special = tokenizer.special_tokens
    said = list(takewhile(lambda token: token not in special.stop_ids, ids))
    stop = ids[len(said)] if len(said) < len(ids) else None
    if finish_reason is None:
        finish_reason = FinishReason.LENGTH if stop is None else FinishReason.STOP
    return interpret(split_parts(said, tokenizer), finish_reason, awaits_tool=stop == special.observation)


def split_parts(ids: Sequence[int], tokenizer: Tokenizer) -> list[Message]:
    """Return one message per part of an answer; a part without a line break is all content."""
    newline = tokenizer.encode("\n")[-1]
    assistant = tokenizer.special_tokens.assistant
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == assistant:
            parts.append([])
        else:
            parts[-1].append(token)
    return [_message(part, newline, tokenizer) for part in parts]


def interpret(
    messages: Sequence[Message], finish_reason: FinishReason, *, awaits_tool: bool = False
) -> Reply:
    """Return the reply that the parts of an answer make.

    Of several calls in one answer the last counts. ``awaits_tool`` says that the model ended its turn the
    way it does for a tool, so that what is no call is an error and not just text.
    """
    readings = [_read(message, finish_reason, awaits_tool) for message in messages]
    asked = [index for index, reading in enumerate(readings) if reading.is_request]
    last = asked[-1] if asked else len(readings)
    before = "\n".join(text for reading in readings[:last] if (text := reading.text))
    if not asked:
        return Reply(before, messages, finish_reason)
    request = readings[last]
    after = "\n".join(text for reading in readings[last:] if (text := reading.text))
    reply = Reply(after, messages, finish_reason, before, request.call, request.error, request.code)
    wanted = request.error is None and finish_reason is not FinishReason.CANCELLED
    return evolve(reply, finish_reason=FinishReason.TOOL_CALLS) if wanted else reply


def visible(text: str) -> str:
    """Return what a user sees of a content: stripped, the placeholder for the training date filled in.

    Source: the response handling of the model card.
    """
    return fill_in_date(text.strip())


def fill_in_date(text: str) -> str:
    """Replace the placeholder for the training date."""
    return text.replace(TRAINING_DATE, "2023年")


def names_tool(metadata: str) -> bool:
    """Tell whether a header line can be a tool's name; a sentence is an answer that lacks its header."""
    return _NAME.fullmatch(metadata.strip()) is not None


def call_message(name: str, arguments: Mapping[str, Any]) -> Message:
    """Return the assistant's message that makes a call, or shows code to the interpreter.

    Raises:
        InvalidInputError: an argument's name is not an identifier, or a value is not plain JSON.
    """
    if name == INTERPRETER and isinstance(arguments.get("code"), str):
        return Message(Role.ASSISTANT, f"```python\n{arguments['code']}\n```", name)
    return format_tool_call(name, arguments)


@frozen
class _Reading:
    """One part: ``text`` to show, and a call, code, or the reason why it could not be read."""

    text: str = ""
    call: ToolCall | None = None
    code: str | None = None
    error: str | None = None

    @property
    def is_request(self) -> bool:
        return self.call is not None or self.code is not None or self.error is not None


def _message(part: list[int], newline: int, tokenizer: Tokenizer) -> Message:
    end = part.index(newline) if newline in part else -1
    header, content = part[: max(end, 0)], part[end + 1 :]
    return Message(
        Role.ASSISTANT,
        tokenizer.decode(content, skip_special_tokens=True),
        tokenizer.decode(header, skip_special_tokens=True),
    )


def _read(message: Message, finish_reason: FinishReason, awaits_tool: bool) -> _Reading:
    name, content = message.metadata.strip(), message.content
    if not name:
        return _Reading(visible(content))
    whole = visible(f"{message.metadata}\n{content}")
    if name == INTERPRETER:
        return _read_code(content, whole, finish_reason)
    if not names_tool(name) or not (
        awaits_tool or "tool_call" in content or fenced_code(content) is not None
    ):
        return _Reading(whole)
    call = parse_tool_call(name, content)
    return _Reading(whole, error=call) if isinstance(call, str) else _Reading(call=call)


def _read_code(content: str, whole: str, finish_reason: FinishReason) -> _Reading:
    block = fenced_code(content)
    code = (content if block is None else block).strip("\n")
    if not code.strip():
        return _Reading(whole, error="there is no code to run")
    is_whole = finish_reason is FinishReason.STOP or content.rstrip().endswith("```")
    return _Reading(code=code) if is_whole else _Reading(whole, error="the code is cut off")
