"""Use case: answer chats and completions of many callers with one model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import time
from typing import TypeVar

from attrs import evolve

from glm3.application.engine import Engine
from glm3.application.serving.answers import AnswerStream, Asked, LoopInbox
from glm3.application.serving.bounds import RequestBounds
from glm3.application.serving.limits import ServiceLimits
from glm3.application.serving.readers import (
    ChatReader,
    CompletionReader,
    chat_stop_check,
    completion_stop_check,
)
from glm3.application.serving.records import (
    ChatRequest,
    CompletionRequest,
    Delta,
    ServedModel,
    TextDelta,
    Tokenized,
    ToolChoice,
    ToolMode,
)
from glm3.domain.conversation import Message, Role, ToolSpec
from glm3.domain.engine.request import EngineRequest
from glm3.domain.errors import InvalidInputError, UnknownModelError
from glm3.domain.generation import GenerationConfig
from glm3.domain.generation_defaults import UNSAID, GenerationDefaults
from glm3.domain.ports.engine_observer import EngineStats
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.prompt import TOOLS_PREAMBLE, PromptBuilder
from glm3.domain.response import INTERPRETER

__all__ = ["ChatService"]

T = TypeVar("T")

_QUICK_CHARACTERS = 20_000  # are encoded in about 10 ms; more would keep the event loop from others


class ChatService:
    """Everything a server offers over one engine; its methods belong to an event loop.

    Args:
        engine: runs the model.
        tokenizer: the model's own.
        names: what the model is called, the usual name first.
        limits: bounds of every request.
        defaults: what the model's folder says of generation, where a request says nothing.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        names: Sequence[str],
        limits: ServiceLimits | None = None,
        defaults: GenerationDefaults = UNSAID,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._builder = PromptBuilder(tokenizer)
        self.defaults = defaults
        self._bounds = RequestBounds(limits or ServiceLimits(), defaults, engine.slot_tokens)
        self.model = ServedModel(tuple(names), int(time()), engine.slot_tokens)
        self._inbox: LoopInbox | None = None

    async def chat(self, request: ChatRequest, client: str = "") -> AnswerStream:
        """Begin to answer a dialogue.

        Raises:
            UnknownModelError: the model is not served here.
            InvalidInputError: the request is out of the service's bounds, or no legal dialogue.
            ContextLengthError: the prompt leaves no room for an answer.
            UnavailableError: the service is about to stop, or overloaded.
        """
        self.require_model(request.model)
        self._bounds.check(request.options, request.choices, request.top_logprobs)
        openings = self._openings(request.tools, request.tool_choice)
        prompt = await self._dialogue_ids(request)
        options = self._options(request.options, len(prompt), "messages")
        offers_tools = bool(request.tools) and request.tool_choice.mode is not ToolMode.NONE
        asked = [
            Asked(
                EngineRequest(
                    prompt=prompt,
                    options=options,
                    client=client,
                    choice=choice,
                    top_logprobs=request.top_logprobs,
                    time_limit=self._bounds.time_limit(request.time_limit),
                    openings=openings,
                    stop_check=chat_stop_check(self._tokenizer, options.stop_strings),
                ),
                ChatReader(self._tokenizer, choice, options.stop_strings, offers_tools=offers_tools),
            )
            for choice in range(request.choices)
        ]
        return AnswerStream(self._engine, self._loop_inbox(), asked, len(prompt))

    async def complete(self, request: CompletionRequest, client: str = "") -> AnswerStream:
        """Begin to continue texts; raises as :meth:`chat` does."""
        self.require_model(request.model)
        choices = request.choices * len(request.prompts)
        self._bounds.check(request.options, choices, request.top_logprobs)
        asked: list[Asked] = []
        beginning: list[Delta] = []
        total = 0
        for number, prompt in enumerate(request.prompts):
            field = "prompt" if len(request.prompts) == 1 else f"prompt[{number}]"
            ids = await self._prompt_ids(prompt, field)
            options = self._options(request.options, len(ids), field)
            total += len(ids)
            for choice in range(request.choices):
                place = len(asked)
                engine_request = EngineRequest(
                    prompt=ids,
                    options=options,
                    client=client,
                    choice=choice,
                    top_logprobs=request.top_logprobs,
                    time_limit=self._bounds.time_limit(request.time_limit),
                    stop_check=completion_stop_check(self._tokenizer, options.stop_strings, ids),
                )
                reader = CompletionReader(self._tokenizer, place, options.stop_strings, ids)
                asked.append(Asked(engine_request, reader))
                if request.echo:
                    text = prompt if isinstance(prompt, str) else self._text(ids)
                    beginning.append(TextDelta(place, text))
        return AnswerStream(self._engine, self._loop_inbox(), asked, total, beginning)

    async def tokenize(self, text: str) -> Tokenized:
        """Return the ids of ``text`` alone, without a prefix.

        Raises:
            TokenizerError: it is not valid Unicode.
        """
        anchor = self._tokenizer.special_tokens.prefix[1]
        length = len(self._tokenizer.decode([anchor]))

        def work() -> Tokenized:
            ids = self._tokenizer.encode(text)
            return Tokenized(
                tuple(ids), tuple(self._tokenizer.decode([anchor, token])[length:] for token in ids)
            )

        return await _away_from_the_loop(10 * len(text), work)

    async def count_tokens(self, request: ChatRequest) -> int:
        """Return how many tokens the prompt of a dialogue has.

        Raises:
            UnknownModelError: the model is not served here.
            ConversationError: the messages are no legal dialogue.
        """
        self.require_model(request.model)
        return len(await self._dialogue_ids(request))

    def list_models(self) -> tuple[ServedModel, ...]:
        """Return what can be asked."""
        return (self.model,)

    def require_model(self, name: str | None) -> None:
        """Refuse a model that is not served; None is any.

        Raises:
            UnknownModelError: it is not.
        """
        if name is not None and name not in self.model.names:
            raise UnknownModelError(
                "no such model is served here",
                field="model",
                expected=", ".join(self.model.names),
                found=repr(name[:100]),
            )

    def stats(self) -> EngineStats:
        """Return what the engine holds at this moment."""
        return self._engine.stats()

    def _options(self, options: GenerationConfig, prompt_length: int, field: str) -> GenerationConfig:
        """Return how the engine answers a prompt of so many tokens."""
        limited = self._bounds.limited(options, prompt_length, field)
        special = self._tokenizer.special_tokens
        stop_ids = options.stop_ids or self.defaults.stop_ids(special)
        return evolve(limited, stop_ids=stop_ids).for_vocabulary(special)

    def _openings(self, tools: Sequence[ToolSpec], choice: ToolChoice) -> list[list[int]]:
        """Return how an answer that must be a call begins: the header line, and the call's first word."""
        if choice.mode is not ToolMode.REQUIRED:
            return []
        names = [tool.name for tool in tools if choice.name in (None, tool.name)]
        if not names:
            raise InvalidInputError(
                "there is no such tool to call",
                field="tool_choice",
                expected="one of " + ", ".join(tool.name for tool in tools) if tools else "tools",
                found=choice.name or choice.mode.value,
            )
        encode = self._tokenizer.encode
        call = {name: "```python\n" + ("" if name == INTERPRETER else "tool_call") for name in names}
        return [[*encode(f"{name}\n"), *encode(call[name])] for name in names]

    async def _dialogue_ids(self, request: ChatRequest) -> list[int]:
        messages = with_tools(request.messages, request.tools, request.tool_choice)
        characters = sum(len(message.content) for message in messages)
        return await _away_from_the_loop(characters, lambda: self._builder.build(messages))

    async def _prompt_ids(self, prompt: str | Sequence[int], field: str) -> list[int]:
        if not isinstance(prompt, str):
            size, largest = self._tokenizer.special_tokens.vocab_size, max(prompt, default=0)
            if largest >= size:
                raise InvalidInputError(
                    "no such token id", field=field, expected=f"ids below {size}", found=largest
                )
            return list(prompt)
        ids = await _away_from_the_loop(len(prompt), lambda: self._tokenizer.encode(prompt))
        return [*self._tokenizer.special_tokens.prefix, *ids]

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def _loop_inbox(self) -> LoopInbox:
        loop = asyncio.get_running_loop()
        if self._inbox is None or self._inbox.loop is not loop:
            self._inbox = LoopInbox(loop)
        return self._inbox


def with_tools(
    messages: Sequence[Message], tools: Sequence[ToolSpec], choice: ToolChoice
) -> tuple[Message, ...]:
    """Return the messages with the tools in their system message, which is added where there is none."""
    if not tools or choice.mode is ToolMode.NONE:
        return tuple(messages)
    definitions = tuple(tool.definition for tool in tools)
    if messages and messages[0].role is Role.SYSTEM:
        return (evolve(messages[0], tools=definitions), *messages[1:])
    return (Message(Role.SYSTEM, TOOLS_PREAMBLE, tools=definitions), *messages)


async def _away_from_the_loop(characters: int, work: Callable[[], T]) -> T:
    """Do work on so many characters; long work goes to a thread, so that other requests go on."""
    return work() if characters <= _QUICK_CHARACTERS else await asyncio.to_thread(work)
