"""Answer the calls in a model's replies with observations, within limits and after asking for leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from glm3.application.tools.runner import ToolLimits, ToolResult, ToolRunner
from glm3.domain.conversation import FinishReason, Reply, ToolCall
from glm3.domain.tools.toolbox import Toolbox

__all__ = ["ToolCaller"]


class ToolCaller:
    """Run the calls of one conversation.

    Args:
        tools: what may be called.
        limits: what calls may cost.
        approve: asked before every call; None allows all of them.
        on_result: told of every call that was run or refused, with its result.
    """

    def __init__(
        self,
        tools: Toolbox,
        *,
        limits: ToolLimits | None = None,
        approve: Callable[[ToolCall], bool] | None = None,
        on_result: Callable[[ToolResult], None] | None = None,
    ) -> None:
        self.limits = limits or ToolLimits()
        self._tools = tools
        self._runner = ToolRunner(tools, self.limits)
        self._approve = approve
        self._on_result = on_result

    @property
    def definitions(self) -> tuple[Mapping[str, Any], ...]:
        """What the model is shown."""
        return self._tools.definitions

    def observe(self, reply: Reply, shown: Sequence[Mapping[str, Any]] = ()) -> str | None:
        """Return the observation that answers a reply, or None for one that is not for this caller.

        A call that cannot be read, and one of a tool that nobody has, is answered with what is wrong.

        Args:
            reply: the model's.
            shown: the tools in the system message; those that are not ours are left to the user.
        """
        call = reply.tool_call
        if call is None:
            unread = reply.tool_call_error
            cut_off = reply.finish_reason in (FinishReason.LENGTH, FinishReason.CANCELLED)
            return None if unread is None or cut_off else f"error: the call could not be read: {unread}"
        if reply.finish_reason is FinishReason.CANCELLED:
            return None
        if self._tools.get(call.name) is None and call.name in [tool.get("name") for tool in shown]:
            return None
        result = self._result(call)
        if self._on_result is not None:
            self._on_result(result)
        return result.observation

    def cancel(self) -> None:
        """Stop waiting for the running call."""
        self._runner.cancel()

    def _result(self, call: ToolCall) -> ToolResult:
        known = self._tools.get(call.name) is not None
        if known and self._approve is not None and not self._approve(call):
            return ToolResult(call, "error: the user did not allow this call", failed=True)
        return self._runner.run(call)
