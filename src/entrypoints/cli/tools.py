"""Tools that a model may call at the terminal: each call is shown, and the user is asked before it runs."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence

from glm3.application.tools.caller import ToolCaller
from glm3.application.tools.examples import example_tools
from glm3.application.tools.runner import ToolResult
from glm3.domain.conversation import ToolCall
from glm3.domain.errors import InvalidInputError, UsageError
from glm3.entrypoints.cli.output import note

__all__ = ["AskUser", "tool_caller"]


class AskUser:
    """Show a call and ask whether it may run: yes, no, or always for this tool.

    Args:
        read_line: returns what the user types, "" at the end of the input.
    """

    def __init__(self, read_line: Callable[[], str] | None = None) -> None:
        self._read_line = read_line or (lambda: sys.stdin.readline())
        self._always: set[str] = set()

    def __call__(self, call: ToolCall) -> bool:
        """Return the user's answer; Ctrl-C and the end of the input are a no, Ctrl-C also a wish to stop."""
        note(f"the model calls {shown(call)}")
        if call.name in self._always:
            return True
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            answer = self._answer()
        except KeyboardInterrupt:
            note()
            signal.signal(signal.SIGINT, handler)
            signal.raise_signal(signal.SIGINT)  # for whoever runs the conversation
            return False
        finally:
            signal.signal(signal.SIGINT, handler)
        if answer == "always":
            self._always.add(call.name)
        return answer != "no"

    def _answer(self) -> str:
        while True:
            note("run it? (y)es, (n)o, (a)lways: ", end="")
            line = self._read_line()
            typed = line.strip().lower()
            for answer in ("yes", "no", "always"):
                if typed and answer.startswith(typed):
                    return answer
            if not line:
                return "no"


def shown(call: ToolCall) -> str:
    """Return a call on one line, arguments as JSON."""
    arguments = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items()
    )
    return f"{call.name}({arguments})"


def tool_caller(names: Sequence[str], *, allow_all: bool) -> ToolCaller | None:
    """Return what runs the tools with these names, or None for no names.

    Raises:
        UsageError: there is no such tool, or nobody can be asked.
    """
    if not names:
        if allow_all:
            raise UsageError("--yes needs a tool", hint="name one with --tool")
        return None
    try:
        tools = example_tools().select(names)
    except InvalidInputError as error:
        raise UsageError(error.message, field="--tool", expected=error.expected, found=error.found) from None
    if not allow_all and not (sys.stdin is not None and sys.stdin.isatty()):
        raise UsageError(
            "nobody can be asked before a tool is called",
            expected="standard input to be a terminal",
            hint="--yes runs every call without asking",
        )
    return ToolCaller(tools, approve=_show if allow_all else AskUser(), on_result=_report)


def _show(call: ToolCall) -> bool:
    note(f"the model calls {shown(call)}")
    return True


def _report(result: ToolResult) -> None:
    note(f"{result.call.name}: {result.observation}")
