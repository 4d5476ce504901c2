"""Use case: hold a conversation with a model."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

from attrs import evolve, frozen

from glm3.application.tools.caller import ToolCaller
from glm3.domain.context_window import fit
from glm3.domain.conversation import FinishReason, Message, Reply, Role, Usage, check_dialogue
from glm3.domain.decoding import PromptCache, stream
from glm3.domain.generation import GenerationConfig
from glm3.domain.ports.model import LanguageModel
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.prompt import TOOLS_PREAMBLE, PromptBuilder
from glm3.domain.reply_stream import ReplyStream

__all__ = ["ChatSession", "TurnStats"]

_DEFAULT_RESERVE = 256  # tokens kept free for the answer when no limit says how long it may be


@frozen
class TurnStats:
    """What the last turn cost, in tokens and seconds."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    first_token_seconds: float
    total_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed behind the first token; 0 for answers of one token."""
        rest = self.total_seconds - self.first_token_seconds
        return (self.completion_tokens - 1) / rest if self.completion_tokens > 1 and rest > 0 else 0.0


class ChatSession:
    """One conversation: its messages, and the model's memory of them.

    The KV cache of finished turns is kept, so that each turn computes its new tokens only.

    Args:
        model: scores tokens.
        tokenizer: the model's own.
        system: text of the system message.
        tools: JSON objects (name, description, parameters) shown to the model in the system message.
        options: how to generate; ends at the model's stop ids unless it names others.
        trim: drop the oldest turns, never the system message, when a prompt exceeds the context;
            otherwise that is an error.
        caller: runs the calls of its own tools, which are shown to the model too; without it every call
            is left to whoever asked.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        options: GenerationConfig | None = None,
        trim: bool = False,
        caller: ToolCaller | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._builder = PromptBuilder(tokenizer)
        self._options = (options or GenerationConfig()).for_vocabulary(tokenizer.special_tokens)
        self._trim = trim
        self._cache: PromptCache | None = None
        self._caller = caller
        self._cancelled = threading.Event()
        self._messages: list[Message] = []
        self.dropped_messages = 0
        self.last_stats: TurnStats | None = None
        tools = [*tools, *(() if caller is None else caller.definitions)]
        if system is not None or tools:
            content = TOOLS_PREAMBLE if system is None else system
            self._messages.append(Message(Role.SYSTEM, content, tools=tuple(tools)))

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return tuple(self._messages)

    @property
    def context_tokens(self) -> int:
        """Tokens the conversation takes in a prompt."""
        return len(self._builder.build(self._messages)) if self._messages else 0

    @property
    def context_limit(self) -> int:
        """Tokens the model can hold."""
        return self._model.config.seq_length

    def replace(self, messages: Sequence[Message]) -> None:
        """Continue from other messages, for example a saved conversation or an edited one.

        Raises:
            ConversationError: they are not a legal dialogue.
        """
        check_dialogue(messages)
        self._messages = list(messages)

    def clear(self) -> None:
        """Forget every turn but the system message, and release the model's memory of them."""
        self._messages = [m for m in self._messages if m.role is Role.SYSTEM]
        self._cache = None
        self.dropped_messages = 0

    def cancel(self) -> None:
        """End the running answer after its current token; may be called from any thread."""
        self._cancelled.set()
        if self._caller is not None:
            self._caller.cancel()

    def send(self, text: str, *, role: Role = Role.USER, options: GenerationConfig | None = None) -> Reply:
        """Add a turn and return the whole answer; see :meth:`stream`."""
        *_, reply = self.stream(text, role=role, options=options)
        assert isinstance(reply, Reply)  # noqa: S101  # stream() ends with it
        return reply

    def stream(
        self, text: str, *, role: Role = Role.USER, options: GenerationConfig | None = None
    ) -> Iterator[str | Reply]:
        """Add a turn and yield the answer's text as it comes, then the reply.

        A tool call or code is not text: it is delivered in the reply alone. A tool's result is given with
        ``role=Role.OBSERVATION``; of a call that this session runs itself the reply is followed by the text
        and the reply that answer its result, so that the last reply is the answer. If the consumer
        stops early (Ctrl-C, a closed iterator) or calls :meth:`cancel`, what was said so far stays in the
        conversation.

        Raises:
            ConversationError: the role may not follow the last one.
            ContextLengthError: the prompt leaves no room for an answer and ``trim`` is off.
        """
        options = self._options if options is None else options.for_vocabulary(self._tokenizer.special_tokens)
        return self._rounds(self._turn(text, role, options), options)

    def _turn(self, text: str, role: Role, options: GenerationConfig) -> Generator[str | Reply, None, Reply]:
        messages = [*self._messages, Message(role, text)]
        check_dialogue(messages)
        reserve = (options.max_new_tokens or _DEFAULT_RESERVE) if self._trim else 1
        reserve = min(reserve, self.context_limit // 2)
        fitting, dropped = fit(messages, self._builder, self.context_limit, reserve, trim=self._trim)
        return self._answer(fitting, dropped, options)

    def _rounds(
        self, turn: Generator[str | Reply, None, Reply], options: GenerationConfig
    ) -> Iterator[str | Reply]:
        """Answer, and as long as the answer is a call that can be run here, go on with its result."""
        self._cancelled.clear()
        reply = yield from turn
        if self._caller is None:
            return
        for _ in range(self._caller.limits.rounds):
            observation = self._caller.observe(reply, self._messages[0].tools if self._messages else ())
            if observation is None or self._cancelled.is_set():
                return
            reply = yield from self._turn(observation, Role.OBSERVATION, options)

    def _answer(
        self, messages: list[Message], dropped: int, options: GenerationConfig
    ) -> Generator[str | Reply, None, Reply]:
        prompt = self._builder.build(messages)
        if self._cache is None:
            self._cache = PromptCache.allocate(self._model)
        cached = self._cache.common_prefix(prompt)
        answer = ReplyStream(self._tokenizer, options.stop_strings)
        reason = FinishReason.CANCELLED
        first = 0.0
        started = perf_counter()
        try:
            for token in stream(
                self._model, prompt, options, cache=self._cache, cancel=self._cancelled.is_set
            ):
                first = first or perf_counter() - started
                delta = answer.push(token.id)
                if delta:
                    yield delta
                if answer.stopped:
                    reason = FinishReason.STOP
                    break
                reason = token.finish_reason or reason
            if delta := answer.finish():
                yield delta
        finally:
            reply = answer.reply(reason)
            if reply.messages:
                self._messages = [*messages, *reply.messages]
                self.dropped_messages += dropped
            total = perf_counter() - started
            self.last_stats = TurnStats(len(prompt), cached, answer.token_count, first, total)
        reply = evolve(reply, usage=Usage(len(prompt), answer.token_count))
        yield reply
        return reply
