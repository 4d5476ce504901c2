"""The slash commands of the interactive chat."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from attrs import evolve, frozen

from glm3.application.chat import ChatSession
from glm3.domain.conversation import Message, Role
from glm3.domain.errors import UsageError
from glm3.entrypoints.cli import transcript

__all__ = ["COMMANDS", "LeaveChat", "SlashCommand", "obey"]


class LeaveChat(Exception):  # noqa: N818  # a wish, not an error
    """The user wants to go."""


@frozen
class SlashCommand:
    """One command: what it takes, what it does, and the function that returns what to tell the user."""

    argument: str
    help: str
    act: Callable[[ChatSession, str], str]


def obey(session: ChatSession, line: str) -> str:
    """Carry out a line that starts with a slash and return what to tell the user.

    Raises:
        UsageError: there is no such command, or its argument is missing.
        LeaveChat: the user wants to go.
    """
    name, _, argument = line.strip().partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        raise UsageError(
            "no such command",
            found=name,
            hint=f"did you mean {near[0]}?" if near else "/help lists them; a message must not start with /",
        )
    argument = argument.strip()
    if command.argument.isupper() and not argument:
        raise UsageError(f"{name} needs an argument", expected=f"{name} {command.argument}")
    return command.act(session, argument)


def _help(_: ChatSession, __: str) -> str:
    lines = [f"  {f'{name} {command.argument}':<16} {command.help}" for name, command in COMMANDS.items()]
    keys = [
        '  Esc Enter        a new line; so does a \\ at the end of a line, or a text between """ and """',
        "  Ctrl-C           stop the answer; on an empty line leave",
        "  Ctrl-D           leave",
    ]
    return "\n".join([*lines, *keys])


def _clear(session: ChatSession, _: str) -> str:
    session.clear()
    return "conversation cleared" + ("; the system message stays" if session.messages else "")


def _system(session: ChatSession, text: str) -> str:
    first = session.messages[0] if session.messages else None
    old = first if first is not None and first.role is Role.SYSTEM else None
    if not text:
        return old.content if old is not None else "no system message"
    new = Message(Role.SYSTEM, text) if old is None else evolve(old, content=text)
    session.replace([new, *session.messages[0 if old is None else 1 :]])
    return "system message set"


def _save(session: ChatSession, name: str) -> str:
    path = Path(name).expanduser()
    transcript.save(path, session.messages)
    return f"{len(session.messages)} messages saved to {path}"


def _load(session: ChatSession, name: str) -> str:
    path = Path(name).expanduser()
    session.replace(transcript.load(path))
    return f"{len(session.messages)} messages loaded from {path}"


def _stats(session: ChatSession, _: str) -> str:
    count = len(session.messages)
    lines = [f"context: {session.context_tokens} of {session.context_limit} tokens, {count} messages"]
    if session.dropped_messages:
        lines.append(f"dropped: {session.dropped_messages} of the oldest messages")
    if (stats := session.last_stats) is not None:
        lines.append(
            f"last answer: {stats.prompt_tokens} prompt tokens ({stats.cached_tokens} of them cached), "
            f"{stats.completion_tokens} answer tokens; first after {stats.first_token_seconds:.2f} s, "
            f"then {stats.tokens_per_second:.1f} tokens/s"
        )
    return "\n".join(lines)


def _exit(_: ChatSession, __: str) -> str:
    raise LeaveChat


COMMANDS = {
    "/help": SlashCommand("", "show this list", _help),
    "/clear": SlashCommand("", "forget the conversation, keep the system message", _clear),
    "/system": SlashCommand("[text]", "set the system message, or show it", _system),
    "/save": SlashCommand("FILE", "write the conversation as JSON", _save),
    "/load": SlashCommand("FILE", "continue a saved conversation", _load),
    "/stats": SlashCommand("", "tokens and speed", _stats),
    "/exit": SlashCommand("", "leave", _exit),
}
