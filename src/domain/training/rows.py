"""The rows of data sets, read from parsed JSON and checked field by field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from glm3.domain.errors import InvalidInputError
from glm3.domain.tool_call import format_tool_call

__all__ = ["Dialogue", "DialogueTurn", "PairRow", "parse_dialogue", "parse_pair"]

_ROLES = ("system", "user", "assistant", "tool")


@frozen
class PairRow:
    """One input and its answer, for example an attribute list and its advert."""

    source: str
    target: str


@frozen
class DialogueTurn:
    """One item of a conversation.

    ``learn`` tells whether the model is taught to say it; it never is for system and user turns. A ``tool``
    turn is a call by the model (``name``, ``parameters``) with the result that followed (``observation``).
    """

    role: str
    content: str = ""
    learn: bool = True
    name: str = ""
    parameters: Mapping[str, Any] = field(factory=dict)
    observation: str = ""


@frozen
class Dialogue:
    """A conversation to learn from, and the tools its system message declares; None declares none."""

    turns: tuple[DialogueTurn, ...]
    tools: tuple[Any, ...] | None = None


def parse_pair(row: object, columns: Sequence[str]) -> PairRow:
    """Read one input-output row; ``columns`` names its two fields.

    Raises:
        InvalidInputError: naming the field that is missing, not text, or blank.
    """
    source, target = columns
    fields = _object(row, "the row")
    return PairRow(_text(fields, source), _text(fields, target))


def parse_dialogue(row: object) -> Dialogue:
    """Read one conversation: ``{"conversations": [...][, "tools": [...]]}``.

    Source: the layout of ChatGLM3's multi-turn finetuning data. Plain dialogues without tools are as
    welcome as tool calls.

    Raises:
        InvalidInputError: naming the field, for example ``conversations[2].observation``.
    """
    fields = _object(row, "the row")
    items = fields.get("conversations")
    if not isinstance(items, list) or not items:
        raise _fault("conversations", "a non-empty list", items)
    tools = fields.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise _fault("tools", "a list", tools)
    turns = [_turn(item, f"conversations[{index}]") for index, item in enumerate(items)]
    _check_order(turns)
    return Dialogue(tuple(turns), None if tools is None else tuple(tools))


def _turn(item: object, where: str) -> DialogueTurn:
    fields = _object(item, where)
    role = fields.get("role")
    if role not in _ROLES:
        raise _fault(f"{where}.role", ", ".join(_ROLES), role)
    learn = fields.get("loss", True)
    if not isinstance(learn, bool):
        raise _fault(f"{where}.loss", "true or false", learn)
    if role != "tool":
        learn = learn and role == "assistant"
        return DialogueTurn(role, _text(fields, "content", where, blank=role == "system"), learn)
    parameters = fields.get("parameters")
    if not isinstance(parameters, dict):
        raise _fault(f"{where}.parameters", "an object", parameters)
    observation = fields.get("observation")
    if not isinstance(observation, str):
        observation = json.dumps(observation, ensure_ascii=False) if observation is not None else ""
    if not observation.strip():
        raise _fault(f"{where}.observation", "a non-empty text", fields.get("observation"))
    _unicode(observation, f"{where}.observation")
    name = _text(fields, "name", where)
    if "\n" in name:
        raise _fault(f"{where}.name", "one line", name)
    try:
        format_tool_call(name, parameters)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"bad row: {error.message}",
            field=f"{where}.parameters",
            expected=error.expected,
            found=error.found or error.field,
        ) from None
    return DialogueTurn("tool", learn=learn, name=name, parameters=parameters, observation=observation)


def _check_order(turns: Sequence[DialogueTurn]) -> None:
    for index, turn in enumerate(turns):
        before = turns[index - 1].role if index else None
        if turn.role == "system" and index:
            raise _fault(f"conversations[{index}].role", "system at the beginning only", "system later on")
        if turn.role == "tool" and before not in ("assistant", "user", "tool"):
            raise _fault(f"conversations[{index}].role", "a tool call behind another turn", before)
    if not any(turn.learn for turn in turns):
        raise _fault("conversations", "a turn the model learns", "none")


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _fault(where, "a JSON object", value)
    return value


def _text(fields: Mapping[str, Any], name: str, where: str = "", *, blank: bool = False) -> str:
    label = f"{where}.{name}" if where else name
    if name not in fields:
        raise InvalidInputError(
            "missing field", field=label, expected="a text", found=f"the fields {', '.join(fields) or 'none'}"
        )
    value = fields[name]
    if not isinstance(value, str) or not (blank or value.strip()):
        raise _fault(label, "a non-empty text", value)
    return _unicode(value, label)


def _unicode(text: str, label: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _fault(label, "valid Unicode", text[error.start]) from None
    return text


def _fault(name: str, expected: str, found: object) -> InvalidInputError:
    shown = repr(found)
    return InvalidInputError(
        "bad row", field=name, expected=expected, found=shown if len(shown) < 80 else shown[:77] + "..."
    )
