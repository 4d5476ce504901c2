"""The interactive chat: read a line, stream the answer, until the user leaves."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from glm3.application.chat import ChatSession
from glm3.domain.conversation import FinishReason, Reply, Role
from glm3.domain.errors import Glm3Error
from glm3.entrypoints.cli.output import answer, note
from glm3.entrypoints.cli.slash import LeaveChat, obey

__all__ = ["LineReader", "chat_loop", "stream_answer"]


class LineReader(Protocol):
    """Where the user's messages come from."""

    def read(self, prompt: str) -> str:
        """Return one message.

        Raises:
            EOFError: there are no more.
            KeyboardInterrupt: the user wants to leave.
        """
        ...


def chat_loop(session: ChatSession, reader: LineReader) -> None:
    """Talk until the user leaves; errors are shown and the conversation goes on."""
    pending_tool: str | None = None
    while True:
        try:
            text = reader.read(_prompt(session, pending_tool))
        except (EOFError, KeyboardInterrupt):
            return
        if not text.strip():
            pending_tool = None
            continue
        try:
            if text.startswith("/"):
                note(obey(session, text))
                continue
            role = Role.OBSERVATION if pending_tool is not None else Role.USER
            reply = stream_answer(session, text, role)
        except LeaveChat:
            return
        except Glm3Error as error:
            note(f"error: {error}")
            continue
        pending_tool = _asked_for(reply)
        if pending_tool is not None:
            note(f"type the result of {pending_tool}, or an empty line to go on without it")


def stream_answer(session: ChatSession, text: str, role: Role = Role.USER) -> Reply:
    """Print the answer to ``text`` as it comes and return it whole.

    The first Ctrl-C ends the answer and keeps what was said; the second one is raised.
    """
    reply: Reply | None = None
    line_is_open = False
    with _interrupts_cancel(session):
        for part in session.stream(text, role=role):
            if isinstance(part, Reply):
                reply = part  # the last one, behind those whose calls were run
                if line_is_open:
                    answer("")
                    line_is_open = False
            else:
                answer(part, end="")
                line_is_open = not part.endswith("\n")
    assert reply is not None  # noqa: S101  # stream() ends with it
    _show_beside_text(reply)
    return reply


def _asked_for(reply: Reply) -> str | None:
    """Return the tool whose result the model waits for."""
    if reply.tool_call is not None:
        return reply.tool_call.name
    return None if reply.code is None else "interpreter"


def _show_beside_text(reply: Reply) -> None:
    if reply.tool_call is not None:
        call = {"tool": reply.tool_call.name, "arguments": dict(reply.tool_call.arguments)}
        answer(json.dumps(call, ensure_ascii=False))
    if reply.code is not None:
        answer(reply.code)
    if reply.tool_call_error is not None:
        note(f"the model's tool call could not be read: {reply.tool_call_error}")
    if reply.finish_reason is FinishReason.CANCELLED:
        note("[stopped]")
    if reply.finish_reason is FinishReason.LENGTH:
        note("[cut off: the limit of tokens is reached]")


def _prompt(session: ChatSession, pending_tool: str | None) -> str:
    who = "you" if pending_tool is None else pending_tool
    return f"[{session.context_tokens}/{session.context_limit}] {who}> "


@contextmanager
def _interrupts_cancel(session: ChatSession) -> Iterator[None]:
    """Make the first Ctrl-C cancel: an exception inside the runtime could leave its cache half-written."""
    previous = signal.getsignal(signal.SIGINT)

    def cancel(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        session.cancel()

    signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
