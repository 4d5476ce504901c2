"""Read messages at a terminal: editing, history across sessions, several lines."""

from __future__ import annotations

from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from glm3.entrypoints.cli.multiline import needs_more, unfold
from glm3.entrypoints.cli.output import note
from glm3.entrypoints.cli.slash import COMMANDS

__all__ = ["LineEditor"]


class LineEditor:
    """A :class:`glm3.entrypoints.cli.repl.LineReader` for people; ``history`` is the file to remember in."""

    def __init__(self, history: Path) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=_open_history(history),
            multiline=True,
            key_bindings=_key_bindings(),
            prompt_continuation=lambda width, _line, _wrapped: ". ".rjust(width),
            completer=WordCompleter(list(COMMANDS), sentence=True),
            complete_while_typing=False,
            reserve_space_for_menu=4,
        )

    def read(self, prompt: str) -> str:
        """See :class:`glm3.entrypoints.cli.repl.LineReader`."""
        return unfold(self._session.prompt(prompt))


def _open_history(path: Path) -> History:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # what people type is theirs alone
    except OSError as error:
        note(f"what you type is not remembered: {error}")
        return InMemoryHistory()
    return FileHistory(str(path))


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        buffer: Buffer = event.current_buffer
        if needs_more(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c")
    def _interrupt(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return bindings
