"""Turns of a dialogue as chat.proto and as the domain have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from glm3.domain.conversation import Message, Role
from glm3.domain.errors import InvalidInputError
from glm3.domain.response import call_message, names_tool
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from glm3.entrypoints.serving.bounds import MOST_MESSAGES
from glm3.entrypoints.serving.fields import Fields, parse_object

__all__ = ["ROLES", "read_messages", "write_messages"]

_NUMBERS = {
    Role.SYSTEM: chat_pb2.ROLE_SYSTEM,
    Role.USER: chat_pb2.ROLE_USER,
    Role.ASSISTANT: chat_pb2.ROLE_ASSISTANT,
    Role.OBSERVATION: chat_pb2.ROLE_OBSERVATION,
}
ROLES: Mapping[int, Role] = {number: role for role, number in _NUMBERS.items()}
"""The roles by their numbers on the wire."""


def read_messages(
    given: Sequence[chat_pb2.Message],
    root: Fields,
    *,
    before: Sequence[Message] = (),
    may_be_empty: bool = False,
) -> list[Message]:
    """Return the dialogue in ``messages``; a thought and its call become two turns.

    ``before`` is what the dialogue has already. Faults are left in ``root``.
    """
    if not given and not may_be_empty:
        root.fault("messages", "there is nothing to answer", "at least one message")
    if len(given) > MOST_MESSAGES:
        root.fault("messages", "too many messages", f"at most {MOST_MESSAGES}", len(given))
        return []
    messages: list[Message] = []
    last = before[-1].role if before else None
    for index, message in enumerate(given):
        at = Fields({}, f"messages[{index}]", root.faults)
        role = ROLES.get(message.role)
        if role is None:
            expected = ", ".join(chat_pb2.Role.keys()[1:])
            at.fault(
                "role", "unknown role" if message.role else "the role is missing", expected, message.role
            )
        elif role is Role.SYSTEM and last is not None:
            at.fault("role", "a system message must come first")
        elif role is Role.OBSERVATION and last is not Role.ASSISTANT:
            at.fault("role", "there is no call that this answers", "an assistant's message before it")
        elif role is Role.ASSISTANT:
            messages += _said(message, at)
        else:
            _refuse_calls(message, at)
            messages.append(Message(role, message.content))
        last = role or Role.USER
    return messages


def write_messages(messages: Iterable[Message]) -> list[chat_pb2.Message]:
    """Return the dialogue as it is sent; calls are written with metadata."""
    return [
        chat_pb2.Message(role=_NUMBERS[one.role], content=one.content, metadata=one.metadata)
        for one in messages
    ]


def _said(message: chat_pb2.Message, at: Fields) -> list[Message]:
    if not message.HasField("tool_call"):
        if "\n" in message.metadata:
            at.fault("metadata", "not one line", "a tool's name, or nothing", message.metadata)
        return [Message(Role.ASSISTANT, message.content, message.metadata)]
    if message.metadata:
        at.fault("metadata", "contradicts the call beside it", "one of them", message.metadata)
    thought = [Message(Role.ASSISTANT, message.content)] if message.content else []
    call = _call(message.tool_call, Fields({}, at.place("tool_call"), at.faults))
    return thought if call is None else [*thought, call]


def _call(given: chat_pb2.ToolCall, at: Fields) -> Message | None:
    if not names_tool(given.name):
        at.fault("name", "not the name of a tool", "letters, digits, _ . : / -", given.name)
        return None
    try:
        arguments = parse_object(given.arguments_json or "{}", "the text")
        return call_message(given.name, arguments)
    except InvalidInputError as error:
        at.faults.append(
            InvalidInputError(
                error.message, field=at.place("arguments_json"), expected=error.expected, found=error.found
            )
        )
        return None


def _refuse_calls(message: chat_pb2.Message, at: Fields) -> None:
    for name, there in (("tool_call", message.HasField("tool_call")), ("metadata", bool(message.metadata))):
        if there:
            at.fault(name, "only the assistant makes calls", "ROLE_ASSISTANT, or no call")
