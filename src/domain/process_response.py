"""Read an answer that was decoded to text already, in the form of the model card's ``process_response``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from glm3.domain.conversation import Role
from glm3.domain.response import INTERPRETER, names_tool, visible
from glm3.domain.tool_call import parse_tool_call

__all__ = ["process_response"]

_MARKER = "<|assistant|>"
_STOP_MARKERS = ("<|user|>", "<|observation|>")

Content = str | dict[str, Any]


def process_response(
    output: str, history: Sequence[Mapping[str, Any]]
) -> tuple[Content, list[dict[str, Any]]]:
    """Return what the last part of ``output`` says, and a copy of ``history`` with every part appended.

    The content is text; or, for a tool named by the header, ``{"name", "parameters"}`` if the history
    declares tools, and ``{"name", "content"}`` if not. A call that cannot be read is ``{"name", "content",
    "error"}``. Nothing in the output is evaluated, and no output raises. The history keeps each part such
    that re-encoding it gives the model's own ids; prefer ids and :func:`parse_response` where there are any.
    """
    extended = [deepcopy(dict(item)) for item in history]
    has_tools = bool(extended) and extended[0].get("role") == Role.SYSTEM and "tools" in extended[0]
    for marker in _STOP_MARKERS:
        output = output.removesuffix(marker)
    result: Content = ""
    for position, part in enumerate(output.split(_MARKER)):
        metadata, content = _split(part, is_first=position == 0)
        extended.append({"role": Role.ASSISTANT.value, "metadata": metadata, "content": content})
        result = _result(metadata, content, has_tools)
    return result, extended


def _split(part: str, *, is_first: bool) -> tuple[str, str]:
    """Cut a part at its first line break and drop the dummy spaces that decoding left.

    Header and content were encoded apart; decoding drops the first dummy space of the whole output only.
    """
    if not is_first:
        part = part.removeprefix(" ")
    metadata, newline, content = part.partition("\n")
    return (metadata, content.removeprefix(" ")) if newline else ("", part)


def _result(metadata: str, content: str, has_tools: bool) -> Content:
    name = metadata.strip()
    if not name:
        return visible(content)
    if not names_tool(name):
        return visible(f"{metadata}\n{content}")
    if not has_tools or name == INTERPRETER:
        return {"name": name, "content": content}
    call = parse_tool_call(name, content)
    if isinstance(call, str):
        return {"name": name, "content": content, "error": call}
    return {"name": name, "parameters": dict(call.arguments)}
