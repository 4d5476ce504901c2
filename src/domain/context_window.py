"""Keep a conversation within the model's context."""

from __future__ import annotations

from collections.abc import Sequence

from glm3.domain.conversation import Message, Role
from glm3.domain.errors import ContextLengthError
from glm3.domain.prompt import PromptBuilder

__all__ = ["fit"]


def fit(
    messages: Sequence[Message], builder: PromptBuilder, seq_length: int, reserve: int, trim: bool
) -> tuple[list[Message], int]:
    """Return the messages whose prompt leaves ``reserve`` of ``seq_length`` tokens free, and how many fell.

    With ``trim`` the oldest exchanges are dropped whole, a user's turn with what answered it; the system
    message and everything from the last user turn on are kept.

    Raises:
        ContextLengthError: the prompt is too long, with ``trim`` even after dropping all that may be.
        ConversationError: the messages are not a legal dialogue.
    """
    length, room = len(builder.build(messages)), seq_length - reserve
    if length <= room:
        return list(messages), 0
    if not trim:
        raise _too_long(length, seq_length, reserve, "shorten the conversation, or allow trimming old turns")
    system = 1 if messages[0].role is Role.SYSTEM else 0
    starts = [index for index in range(system, len(messages)) if messages[index].role is Role.USER]
    kept_from = system
    for start in starts:
        length -= sum(len(builder.message_ids(message)) for message in messages[kept_from:start])
        kept_from = start
        if length <= room:
            return [*messages[:system], *messages[kept_from:]], kept_from - system
    raise _too_long(length, seq_length, reserve, "the last turn alone does not fit; shorten it")


def _too_long(length: int, seq_length: int, reserve: int, hint: str) -> ContextLengthError:
    return ContextLengthError(
        "the prompt is too long for the model's context",
        expected=f"at most {seq_length} tokens (seq_length), {reserve} of them reserved for the answer",
        found=f"a prompt of {length} tokens",
        hint=hint,
    )
