"""Conversations from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glm3.application.chat import ChatSession as Session
from glm3.domain.generation import GenerationConfig
from glm3.entrypoints.python.model import ChatGLM2ForConditionalGeneration
from glm3.entrypoints.python.tokenizer import ChatGLM3Tokenizer

__all__ = ["ChatSession"]


class ChatSession(Session):
    """A conversation with a loaded model; see :class:`glm3.application.chat.ChatSession`.

    Example::

        chat = glm3.ChatSession(model, tokenizer, system="You are terse.")
        for piece in chat.stream("你好"):
            print(piece, end="")  # text, and at the end the Reply

    Keyword arguments beyond these are the fields of
    :class:`glm3.domain.generation.GenerationConfig`.
    """

    def __init__(
        self,
        model: ChatGLM2ForConditionalGeneration,
        tokenizer: ChatGLM3Tokenizer,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        trim: bool = False,
        **generation: Any,
    ) -> None:
        super().__init__(
            model.port,
            tokenizer.port,
            system=system,
            tools=tools or (),
            options=GenerationConfig(**generation),
            trim=trim,
        )
