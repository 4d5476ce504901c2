"""Messages of OpenAI's API, and of ChatGLM3's own server, as turns of a ChatGLM3 dialogue.

The model makes one call at a time, so several calls of one message become call, result, call, result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import define, field

from glm3.domain.conversation import Message, Role
from glm3.domain.errors import InvalidInputError
from glm3.domain.response import call_message, names_tool
from glm3.entrypoints.serving.bounds import MOST_MESSAGES
from glm3.entrypoints.serving.fields import Fields

__all__ = ["read_messages"]

_SYSTEM = ("system", "developer")
_RESULT = ("tool", "function", "observation")
_ROLES = (*_SYSTEM, "user", "assistant", *_RESULT)


def read_messages(body: Fields) -> list[Message]:
    """Return the dialogue in ``messages``; faults are left in ``body``."""
    given = body.items("messages")
    if not given:
        if given is not None or body.raw("messages") is None:
            body.fault("messages", "there is nothing to answer", "at least one message")
        return []
    if len(given) > MOST_MESSAGES:
        body.fault("messages", "too many messages", f"at most {MOST_MESSAGES}", len(given))
        return []
    dialogue = _Dialogue(body)
    for index, item in enumerate(given):
        fields = body.object_at(f"messages[{index}]", item)
        if fields is not None:
            dialogue.add(fields)
    dialogue.end()
    return dialogue.messages


@define
class _Dialogue:
    """The turns so far, and the calls that have no result yet: id, call."""

    body: Fields
    messages: list[Message] = field(factory=list)
    waiting: list[tuple[str | None, Message]] = field(factory=list)
    calls_at: str = ""

    def add(self, fields: Fields) -> None:
        role = fields.text("role")
        if role is None or role not in _ROLES:
            if role is not None or fields.raw("role") is None:
                fields.fault(
                    "role", "unknown role" if role else "the role is missing", ", ".join(_ROLES), role
                )
            return
        if role not in _RESULT:
            self.end()
        if role in _SYSTEM:
            self._system(fields)
        elif role == "user":
            fields.ignore("name", "metadata")
            self.messages.append(Message(Role.USER, _content(fields)))
        elif role == "assistant":
            self._assistant(fields)
        else:
            self._result(fields, role)
        fields.refuse_unknown()

    def end(self) -> None:
        """Refuse calls that nobody answered."""
        if self.waiting:
            self.body.fault(
                self.calls_at, "calls without a result", "a result for each call, before the next turn"
            )
            self.waiting.clear()

    def _system(self, fields: Fields) -> None:
        fields.ignore("name", "metadata")
        content = _content(fields)
        if not self.messages:
            self.messages.append(Message(Role.SYSTEM, content))
        elif len(self.messages) == 1 and self.messages[0].role is Role.SYSTEM:
            self.messages[0] = Message(Role.SYSTEM, f"{self.messages[0].content}\n{content}")
        else:
            fields.fault("role", "a system message must come first", found="system")

    def _assistant(self, fields: Fields) -> None:
        fields.ignore("name", "refusal", "audio", "annotations", "reasoning_content")
        metadata = fields.text("metadata") or ""
        calls = _calls(fields)
        if "\n" in metadata:
            fields.fault("metadata", "not one line", "a tool's name, or nothing", metadata)
        elif calls and metadata:
            fields.fault("metadata", "contradicts the call beside it", "one of them", metadata)
        makes_calls = bool(fields.raw("tool_calls") or fields.raw("function_call"))
        content = _content(fields, required=not makes_calls)
        if content or not makes_calls:
            self.messages.append(Message(Role.ASSISTANT, content, metadata))
        if calls:
            self.waiting = calls
            self.calls_at = fields.place("tool_calls")

    def _result(self, fields: Fields, role: str) -> None:
        call_id = fields.text("tool_call_id")
        name = fields.text("name")
        fields.ignore("metadata")
        content = _content(fields)
        if self.waiting:
            matching = [call for call in self.waiting if _answers(call, call_id, name)]
            if not matching:
                known = ", ".join(str(id_) for id_, _ in self.waiting)
                fields.fault("tool_call_id", "no such call in the message before", known, call_id or name)
                return
            self.waiting.remove(matching[0])
            self.messages.append(matching[0][1])
        elif not self.messages or self.messages[-1].role is not Role.ASSISTANT:
            fields.fault(
                "role", "there is no call that this answers", "an assistant's message before it", role
            )
            return
        self.messages.append(Message(Role.OBSERVATION, content))


def _answers(call: tuple[str | None, Message], call_id: str | None, name: str | None) -> bool:
    known, message = call
    if call_id is not None and known is not None:
        return call_id == known
    return name is None or name == message.metadata


def _content(fields: Fields, *, required: bool = True) -> str:
    value = fields.raw("content")
    if value is None:
        if required:
            fields.fault("content", "the content is missing", "text")
        return ""
    if isinstance(value, list):
        return "".join(_part(fields, f"content[{index}]", part) for index, part in enumerate(value))
    if isinstance(value, Mapping):
        fields.fault("content", "not text", "text, or a list of text parts", value)
        return ""
    return fields.text("content") or ""


def _part(fields: Fields, name: str, part: Any) -> str:
    inner = fields.object_at(name, part)
    if inner is None:
        return ""
    kind = inner.text("type")
    if kind not in ("text", "refusal"):
        inner.fault("type", "this model reads text only", '"text"', kind)
        return ""
    return inner.text(kind) or ""


def _calls(fields: Fields) -> list[tuple[str | None, Message]]:
    calls: list[tuple[str | None, Message]] = []
    for index, item in enumerate(fields.items("tool_calls") or ()):
        call = fields.object_at(f"tool_calls[{index}]", item)
        if call is None:
            continue
        call_id = call.text("id")
        call.only("type", "function")
        call.ignore("index")
        function = call.nested("function")
        if function is None:
            if call.raw("function") is None:
                call.fault("function", "the function is missing", "{name, arguments}")
            continue
        call.refuse_unknown()
        if (message := _call_message(function)) is not None:
            calls.append((call_id, message))
    legacy = fields.nested("function_call")
    if legacy is not None and (message := _call_message(legacy)) is not None:
        calls.append((None, message))
    return calls


def _call_message(function: Fields) -> Message | None:
    name, arguments = function.text("name"), function.raw("arguments")
    function.refuse_unknown()
    if name is None or not names_tool(name):
        function.fault("name", "not the name of a tool", "letters, digits, _ . : / -", name)
        return None
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:
            function.fault("arguments", f"not JSON: {error}", "a JSON object as text")
            return None
    if not isinstance(arguments, Mapping):
        function.fault("arguments", "not a JSON object", "a JSON object as text", arguments)
        return None
    try:
        return call_message(name, arguments)
    except InvalidInputError as error:
        function.fault("arguments", error.message, str(error.expected), error.found)
        return None
