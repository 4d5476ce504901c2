"""What a ChatGLM3 dialogue is made of. Source: the layout described in ChatGLM3's PROMPT.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from attrs import field, frozen

from glm3.domain.errors import ConversationError

__all__ = ["FinishReason", "Message", "Reply", "Role", "ToolCall", "ToolSpec", "Usage", "check_dialogue"]


class Role(StrEnum):
    """Who speaks. ``observation`` is the result of a tool."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    OBSERVATION = "observation"

    @classmethod
    def parse(cls, name: str) -> Role:
        """Return the role called ``name``.

        Raises:
            ConversationError: there is no such role.
        """
        try:
            return cls(name)
        except ValueError:
            raise ConversationError(
                "unknown role",
                field="role",
                expected=", ".join(cls),
                found=repr(name),
                hint="a tool's result has the role 'observation'",
            ) from None


class FinishReason(StrEnum):
    """Why a reply ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CANCELLED = "cancelled"


@frozen
class ToolSpec:
    """A tool the model may call; ``definition`` is the JSON object shown to the model."""

    name: str
    definition: Mapping[str, Any]


@frozen
class ToolCall:
    """A call the model asks for: the tool's name and its keyword arguments, plain JSON values."""

    name: str
    arguments: Mapping[str, Any]


def _tools_tuple(tools: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(tools)


@frozen
class Message:
    """One turn. ``metadata`` is the rest of the header line: empty, or a tool's name for a call.

    ``tools`` belong to a system message only; they are shown to the model as JSON behind its content.
    """

    role: Role
    content: str
    metadata: str = ""
    tools: tuple[Mapping[str, Any], ...] = field(default=(), converter=_tools_tuple)


@frozen
class Usage:
    """Counted tokens of one exchange."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def _messages_tuple(messages: Iterable[Message]) -> tuple[Message, ...]:
    return tuple(messages)


@frozen
class Reply:
    """What a model's answer means.

    ``messages`` are the turns to append to the history: re-encoding them gives the model's own ids.
    ``text`` is what a user sees; ``thought`` is text before a tool call; ``tool_call`` is set for a
    well-formed call, and ``tool_call_error`` says why a call could not be read (its text is then ``text``).
    """

    text: str
    messages: tuple[Message, ...] = field(converter=_messages_tuple)
    finish_reason: FinishReason = FinishReason.STOP
    thought: str = ""
    tool_call: ToolCall | None = None
    tool_call_error: str | None = None
    code: str | None = None
    usage: Usage | None = None


def check_dialogue(messages: Sequence[Message]) -> None:
    """Check the order of roles that ChatGLM3 was trained on.

    Raises:
        ConversationError: a system message is not first, or an observation follows no assistant turn.
    """
    for position, message in enumerate(messages):
        if message.role is Role.SYSTEM and position > 0:
            raise ConversationError(
                "a system message must come first",
                field=f"messages[{position}].role",
                found=f"system after {messages[position - 1].role}",
                hint="start a new conversation, or put the text into the first message",
            )
        if message.role is Role.OBSERVATION and (
            position == 0 or messages[position - 1].role is not Role.ASSISTANT
        ):
            raise ConversationError(
                "an observation must answer a tool call",
                field=f"messages[{position}].role",
                expected="an assistant turn before it",
                found="nothing before it" if position == 0 else f"{messages[position - 1].role} before it",
            )
        if message.tools and message.role is not Role.SYSTEM:
            raise ConversationError(
                "tools belong to the system message",
                field=f"messages[{position}].tools",
                found=f"tools on a {message.role} message",
            )
