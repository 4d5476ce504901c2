r"""Read a prompt that was written out as text with its role markers.

The markers of such a text are control tokens, so it must be read into messages and never tokenised as it
stands. Source: the predict command of the model card, ``[gMASK]sop<|user|> \n 你好<|assistant|> \n``.
"""

from __future__ import annotations

import re

from glm3.domain.conversation import Message, Role
from glm3.domain.errors import ConversationError

__all__ = ["is_template", "parse_prompt"]

_START = "[gMASK]sop"
_MARKER = re.compile("<\\|(" + "|".join(Role) + ")\\|>")


def is_template(text: str) -> bool:
    """Tell whether ``text`` is a written-out prompt: it starts with ``[gMASK]sop<|``, spaces aside."""
    return text.lstrip().startswith(f"{_START}<|")


def parse_prompt(text: str) -> list[Message]:
    """Return the messages of a written-out prompt; any other text is one user message, unchanged.

    A written-out prompt is read the way it is meant. A line break may be written as a backslash and an n
    if there are no real ones, as shells pass it on. One space before a content and one line break behind
    it are layout. The ``<|assistant|>`` that asks for the answer is no message. Without a header line, all
    of a message is content; only the assistant's header can name a tool.

    Raises:
        ConversationError: it starts with an unknown role, or holds no message.
    """
    if not is_template(text):
        return [Message(Role.USER, text)]
    body = text.lstrip().removeprefix(_START)
    if "\n" not in body:
        body = body.replace("\\n", "\n")
    before, *parts = _MARKER.split(body)
    if before:
        raise ConversationError(
            "the prompt starts with an unknown role marker",
            expected=", ".join(f"<|{role}|>" for role in Role),
            found=repr(before[: before.find("|>") + 2] if "|>" in before else before[:20]),
        )
    messages = [_message(Role(role), part) for role, part in zip(parts[::2], parts[1::2], strict=True)]
    if messages[-1].role is Role.ASSISTANT and not (messages[-1].content or messages[-1].metadata):
        messages.pop()
    if not messages:
        raise ConversationError("the prompt holds no message", found=repr(text))
    return messages


def _message(role: Role, part: str) -> Message:
    header, newline, content = part.partition("\n")
    metadata = header.strip()
    if not newline or (metadata and role is not Role.ASSISTANT):
        metadata, content = "", part
    return Message(role, content.removeprefix(" ").removesuffix("\n"), metadata)
