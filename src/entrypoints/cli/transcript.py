"""Conversations as JSON files: a list of messages, as the model card's ``history``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glm3.domain.conversation import Message, check_dialogue
from glm3.domain.errors import ConversationError, InvalidInputError
from glm3.domain.prompt import messages_from_history
from glm3.entrypoints.cli.files import read_text, write_text

__all__ = ["load", "load_tools", "save"]


def save(path: Path, messages: Sequence[Message]) -> None:
    """Write ``messages`` whole, or leave ``path`` as it was.

    Raises:
        StorageError: the file system refused.
    """
    write_text(path, json.dumps([_to_json(m) for m in messages], ensure_ascii=False, indent=2) + "\n")


def load(path: Path) -> list[Message]:
    """Read a saved conversation.

    Raises:
        MissingFileError: there is no such file.
        InvalidInputError: it is not a conversation; path, index and key of the first fault are named.
    """
    try:
        messages = messages_from_history(_read_list(path, "messages"))
        check_dialogue(messages)
    except ConversationError as error:
        error.path = path
        raise
    return messages


def load_tools(path: Path) -> list[Mapping[str, Any]]:
    """Read tool definitions: a JSON list of objects that each have a ``name``.

    Raises:
        MissingFileError: there is no such file.
        InvalidInputError: it is no such list.
    """
    tools = _read_list(path, "tools")
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise _fault(
                path, f"[{index}]", "not a tool", "an object with name, description, parameters", tool
            )
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise _fault(path, f"[{index}].name", "a tool needs a name", "text", tool.get("name"))
    return tools


def _to_json(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.metadata:
        value["metadata"] = message.metadata
    if message.tools:
        value["tools"] = list(message.tools)
    return value


def _read_list(path: Path, what: str) -> list[Any]:
    text = read_text(path)
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        raise InvalidInputError(
            "not JSON", path=path, line=line, expected=f"a JSON list of {what}", found=str(error)
        ) from None
    if not isinstance(value, list):
        raise _fault(path, None, f"not a list of {what}", f"a JSON list of {what}", value)
    return value


def _fault(path: Path, field: str | None, message: str, expected: str, found: object) -> InvalidInputError:
    shown = None if found is None else json.dumps(found, ensure_ascii=False)[:60]
    return InvalidInputError(message, path=path, field=field, expected=expected, found=shown)
