"""Turn messages into ids: the one place that knows the prompt layout.

``[gMASK] sop``, then every message as its role's marker, its header line and its content, then the marker
``<|assistant|>``. Header and content are encoded apart, so each starts with its own dummy space; nothing
lies between a content and the next marker. Source: the layout described in ChatGLM3's PROMPT.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glm3.domain.conversation import Message, Role, check_dialogue
from glm3.domain.errors import ConversationError, InvalidInputError
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.special_tokens import PAD_ID

__all__ = ["TOOLS_PREAMBLE", "PromptBuilder", "messages_from_history", "pad_batch"]

TOOLS_PREAMBLE = "Answer the following questions as best as you can. You have access to the following tools:"
"""The system text ChatGLM3 was trained to see above a list of tools."""

IntArray = NDArray[np.int64]


class PromptBuilder:
    """Build prompts for one vocabulary. Text never becomes a control token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = tokenizer.special_tokens

    def message_ids(self, message: Message) -> list[int]:
        """Return the ids of one message, its role's marker first."""
        header = self._tokenizer.encode(f"{message.metadata}\n")
        return [self._special.role_id(message.role), *header, *self._tokenizer.encode(_shown(message))]

    def build(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids after which the model writes the assistant's turn.

        Raises:
            ConversationError: there is no message, or a role stands in the wrong place.
        """
        if not messages:
            raise ConversationError("there is nothing to answer", expected="at least one message")
        check_dialogue(messages)
        body = [token for message in messages for token in self.message_ids(message)]
        return [*self._special.prefix, *body, self._special.assistant]

    def build_single_message(self, role: str, metadata: str, message: str) -> list[int]:
        """Return the ids of one message given by its parts.

        Raises:
            ConversationError: there is no such role.
        """
        return self.message_ids(Message(Role.parse(role), message, metadata))

    def build_chat_input(
        self, query: str, history: Sequence[Mapping[str, Any]] = (), role: str = "user"
    ) -> list[int]:
        """Return the prompt of ``history``, in the form of the model card, followed by ``query``.

        Raises:
            ConversationError: an item of the history is malformed, or a role stands in the wrong place.
        """
        return self.build([*messages_from_history(history), Message(Role.parse(role), query)])


def messages_from_history(history: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Read the history of the model card: ``{"role", "content"[, "metadata"][, "tools"]}`` per item.

    Tools that are None or empty count as none. Keys the layout does not know are ignored, unless they
    hold a call that would be lost.

    Raises:
        ConversationError: an item breaks the form; the error names the item and the key.
    """
    if isinstance(history, (str, bytes, Mapping)) or not isinstance(history, Sequence):
        raise ConversationError(
            "not a history", field="history", expected="a list of messages", found=type(history).__name__
        )
    return [_message_from_item(item, f"history[{position}]") for position, item in enumerate(history)]


def pad_batch(
    rows: Sequence[Sequence[int]], side: Literal["left", "right"] = "left", pad_id: int = PAD_ID
) -> tuple[IntArray, IntArray, IntArray]:
    """Pad prompts to one length.

    Returns:
        ``input_ids``, ``attention_mask`` (1 at real tokens) and ``position_ids`` (counted from the first
        real token, 0 at pads), each ``(batch, seq)``.

    Raises:
        InvalidInputError: there are no rows, or the side is unknown.
    """
    if not rows or side not in ("left", "right"):
        raise InvalidInputError(
            "cannot pad", expected="rows, and the side left or right", found=f"{len(rows)} rows, {side!r}"
        )
    shape = len(rows), max(map(len, rows))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    attention_mask, position_ids = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for index, row in enumerate(rows):
        start = shape[1] - len(row) if side == "left" else 0
        real = np.s_[index, start : start + len(row)]
        input_ids[real], attention_mask[real], position_ids[real] = row, 1, np.arange(len(row))
    return input_ids, attention_mask, position_ids


def _shown(message: Message) -> str:
    if not message.tools:
        return message.content
    return f"{message.content}\n{json.dumps(message.tools, indent=4, ensure_ascii=False)}"


def _message_from_item(item: object, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise ConversationError(
            "not a message", field=where, expected='{"role": ..., "content": ...}', found=type(item).__name__
        )
    for key in ("function_call", "tool_calls"):
        if item.get(key):
            raise ConversationError(
                "a call in this form is not part of the layout",
                field=f"{where}.{key}",
                hint="write a call as an assistant message: the tool's name as metadata, and the fenced "
                "tool_call(...) as content",
            )
    role = _require_text(item, "role", where)
    try:
        parsed_role = Role.parse(role)
    except ConversationError as error:
        raise ConversationError(
            error.message, field=f"{where}.role", expected=error.expected, found=error.found, hint=error.hint
        ) from None
    metadata = _require_text(item, "metadata", where, default="")
    if "\n" in metadata:
        raise ConversationError(
            "metadata is one line", field=f"{where}.metadata", expected="no line break", found=repr(metadata)
        )
    tools = _tools(item.get("tools"), f"{where}.tools")
    return Message(parsed_role, _require_text(item, "content", where), metadata, tools)


def _require_text(item: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = item.get(key, default)
    if isinstance(value, str):
        return value
    hint = None
    if key == "content" and isinstance(value, Mapping):
        hint = (
            "this is the parsed form of a tool call; keep the message that the response parser appended "
            "to the history instead, its content is the text of the call"
        )
    raise ConversationError(
        f"{key} is not text" if key in item else f"{key} is missing",
        field=f"{where}.{key}",
        expected="text",
        found=type(value).__name__ if key in item else f"keys {', '.join(map(str, item)) or 'none'}",
        hint=hint,
    )


def _tools(value: object, where: str) -> tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise ConversationError(
            "tools are not a list", field=where, expected="a list of JSON objects", found=type(value).__name__
        )
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ConversationError(
            f"tools are not JSON: {error}", field=where, expected="a list of JSON objects"
        ) from None
    return tuple(value)
