"""Conversations from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from glm3.application.chat import ChatSession as Session
from glm3.application.tools.caller import ToolCaller
from glm3.application.tools.runner import ToolLimits, ToolResult
from glm3.domain.conversation import ToolCall
from glm3.domain.generation import GenerationConfig
from glm3.domain.tools.toolbox import Toolbox
from glm3.entrypoints.python.model import ChatGLM2ForConditionalGeneration
from glm3.entrypoints.python.tokenizer import ChatGLM3Tokenizer

__all__ = ["ChatSession"]


class ChatSession(Session):
    """A conversation with a loaded model; see :class:`glm3.application.chat.ChatSession`.

    Example::

        chat = glm3.ChatSession(model, tokenizer, system="You are terse.")
        for piece in chat.stream("你好"):
            print(piece, end="")  # text, and at the end the Reply

    Tools are JSON objects, whose calls are left to you, or functions with type hints and a docstring,
    whose calls are run and answered within ``tool_limits``::

        chat = glm3.ChatSession(model, tokenizer, tools=[get_weather], approve=ask_the_user)

    ``approve`` is asked before every call (without it all are allowed), ``on_tool_result`` is told of each.
    Keyword arguments beyond these are the fields of
    :class:`glm3.domain.generation.GenerationConfig`.
    """

    def __init__(
        self,
        model: ChatGLM2ForConditionalGeneration,
        tokenizer: ChatGLM3Tokenizer,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
        *,
        trim: bool = False,
        approve: Callable[[ToolCall], bool] | None = None,
        on_tool_result: Callable[[ToolResult], None] | None = None,
        tool_limits: ToolLimits | None = None,
        **generation: Any,
    ) -> None:
        functions = Toolbox(tool for tool in tools or () if not isinstance(tool, Mapping))
        super().__init__(
            model.port,
            tokenizer.port,
            system=system,
            tools=[tool for tool in tools or () if isinstance(tool, Mapping)],
            options=GenerationConfig(**generation),
            trim=trim,
            caller=ToolCaller(functions, limits=tool_limits, approve=approve, on_result=on_tool_result)
            if functions
            else None,
        )
