"""Run one call of a tool and say what came of it; never raises on what a tool does."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import Any

from attrs import field, frozen
from attrs.validators import ge, gt

from glm3.domain.conversation import ToolCall
from glm3.domain.errors import Glm3Error, InvalidInputError, TimeLimitError
from glm3.domain.tools.tool import Tool
from glm3.domain.tools.toolbox import Toolbox

__all__ = ["ToolLimits", "ToolResult", "ToolRunner"]


@frozen
class ToolLimits:
    """How much a model's calls may cost.

    Args:
        rounds: calls in a row before the user speaks again.
        seconds: for one call.
        characters: of a result; the rest is cut off.
    """

    rounds: int = field(default=5, validator=ge(1))
    seconds: float = field(default=10.0, validator=gt(0))
    characters: int = field(default=4000, validator=ge(100))


@frozen
class ToolResult:
    """A call and the ``observation`` that the model is given for it; ``failed`` says that it is an error."""

    call: ToolCall
    observation: str
    failed: bool = False


class ToolRunner:
    """Run calls of the tools in a box, each on a thread of its own.

    A thread cannot be stopped from outside: of a call that takes too long the result is dropped, and until
    it has ended its tool is not called again.
    """

    def __init__(self, tools: Toolbox, limits: ToolLimits) -> None:
        self._tools = tools
        self._limits = limits
        self._running: SimpleQueue[str | BaseException] | None = None
        self._threads: dict[str, threading.Thread] = {}

    def run(self, call: ToolCall) -> ToolResult:
        """Return the result of a call, or why there is none, in words that help the model."""
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(each.name for each in self._tools) or "none"
            return _failure(call, f"there is no tool {call.name}; tools: {known}")
        try:
            arguments = tool.bind(call.arguments)
        except InvalidInputError as error:
            return _failure(call, str(error))
        earlier = self._threads.get(call.name)
        if earlier is not None and earlier.is_alive():
            return _failure(call, f"{call.name} is still busy with an earlier call")
        outcome = self._outcome(tool, arguments)
        if isinstance(outcome, BaseException):
            text = str(outcome) if isinstance(outcome, Glm3Error) else f"{type(outcome).__name__}: {outcome}"
            return _failure(call, self._cut(text))
        return ToolResult(call, self._cut(outcome))

    def cancel(self) -> None:
        """Stop waiting for the running call; may be called from any thread and from a signal handler."""
        running = self._running
        if running is not None:
            running.put(InterruptedError("the user stopped the call"))

    def _outcome(self, tool: Tool, arguments: Mapping[str, Any]) -> str | BaseException:
        outcome: SimpleQueue[str | BaseException] = SimpleQueue()

        def work() -> None:
            try:
                outcome.put(_as_text(tool.function(**arguments)))
            except BaseException as error:  # whatever it is, the model is told
                outcome.put(error)

        thread = threading.Thread(target=work, name=f"tool {tool.name}", daemon=True)
        self._threads[tool.name] = thread
        self._running = outcome
        thread.start()
        try:
            return outcome.get(timeout=self._limits.seconds)
        except Empty:
            return TimeLimitError(f"no result within {self._limits.seconds:g} s")
        finally:
            self._running = None

    def _cut(self, text: str) -> str:
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair has no tokens
        most = self._limits.characters
        return text if len(text) <= most else f"{text[:most]}\n[cut off: {most} of {len(text)} characters]"


def _failure(call: ToolCall, text: str) -> ToolResult:
    return ToolResult(call, f"error: {text}", failed=True)


def _as_text(value: object) -> str:
    """Return what the model reads: text as it is, JSON's values as JSON, others as they print."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)
