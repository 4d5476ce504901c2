"""Turn one answer's tokens into what its caller sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from glm3.application.serving.records import (
    Delta,
    FinishDelta,
    TextDelta,
    ThoughtDelta,
    TokenLogprob,
    ToolCallDelta,
)
from glm3.domain.conversation import FinishReason, Reply, ToolCall
from glm3.domain.detokenizer import IncrementalDetokenizer
from glm3.domain.engine.request import Produced
from glm3.domain.generation import StopCheck
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.reply_stream import ReplyStream
from glm3.domain.response import INTERPRETER, visible

__all__ = ["AnswerReader", "ChatReader", "CompletionReader", "chat_stop_check", "completion_stop_check"]


class AnswerReader(Protocol):
    """Read one answer, token by token."""

    finished: bool
    token_count: int

    def push(self, produced: Sequence[Produced]) -> list[Delta]:
        """Take the next tokens and return what they add; the last delta is the finish."""
        ...


class ChatReader:
    """Read the answer to a chat.

    Args:
        tokenizer: the model's own.
        choice: the answer's number.
        stop_strings: end the answer.
        offers_tools: whether a call may be asked for; otherwise its text is text like any other.
    """

    def __init__(
        self, tokenizer: Tokenizer, choice: int, stop_strings: Sequence[str], *, offers_tools: bool
    ) -> None:
        self.finished = False
        self.token_count = 0
        self._choice = choice
        self._offers_tools = offers_tools
        self._stream = ReplyStream(tokenizer, stop_strings)
        self._logprobs = _Logprobs(tokenizer)
        self._shown = ""

    def push(self, produced: Sequence[Produced]) -> list[Delta]:
        if len(produced) > 1 and produced[0].logprob is not None:  # a header line's must not go with text
            return [delta for token in produced if not self.finished for delta in self.push([token])]
        self.token_count += len(produced)
        text = self._stream.push(*[token.id for token in produced])
        self._logprobs.push(produced)
        if not self._shown and not text and self._logprobs.blank:
            self._logprobs.drop()  # the header line
        deltas = self._text(text)
        reason = FinishReason.STOP if self._stream.stopped else produced[-1].finish_reason
        return deltas if reason is None else deltas + self._finish(reason)

    def _text(self, text: str) -> list[Delta]:
        self._shown += text
        return [TextDelta(self._choice, text, self._logprobs.take())] if text else []

    def _finish(self, reason: FinishReason) -> list[Delta]:
        self.finished = True
        deltas = self._text(self._stream.finish())
        reply = self._stream.reply(reason)
        call = _call(reply)
        if call is not None and not self._offers_tools:
            whole = "\n".join(visible(f"{m.metadata}\n{m.content}") for m in reply.messages)
            deltas += self._text(whole.removeprefix(self._shown))
            return [*deltas, FinishDelta(self._choice, reason, messages=reply.messages)]
        if call is not None:
            if reply.thought:
                deltas.append(ThoughtDelta(self._choice, reply.thought))
            deltas.append(ToolCallDelta(self._choice, call))
        finish = FinishDelta(self._choice, reply.finish_reason, reply.tool_call_error, reply.messages)
        return [*deltas, finish]


class CompletionReader:
    """Read a continuation of ``prompt``, which its first piece may go on without a space."""

    def __init__(
        self, tokenizer: Tokenizer, choice: int, stop_strings: Sequence[str], prompt: Sequence[int]
    ) -> None:
        self.finished = False
        self.token_count = 0
        self._choice = choice
        self._stop_ids = tokenizer.special_tokens.stop_ids
        self._detokenizer = IncrementalDetokenizer(tokenizer, stop_strings)
        self._detokenizer.follow(prompt)
        self._logprobs = _Logprobs(tokenizer)

    def push(self, produced: Sequence[Produced]) -> list[Delta]:
        self.token_count += len(produced)
        text = self._detokenizer.push(*[token.id for token in produced if token.id not in self._stop_ids])
        self._logprobs.push(produced)
        reason = FinishReason.STOP if self._detokenizer.stopped else produced[-1].finish_reason
        if reason is not None:
            self.finished = True
            text += self._detokenizer.finish()
        deltas: list[Delta] = [TextDelta(self._choice, text, self._logprobs.take())] if text else []
        return deltas if reason is None else [*deltas, FinishDelta(self._choice, reason)]


def chat_stop_check(tokenizer: Tokenizer, stop_strings: Sequence[str]) -> StopCheck | None:
    """Return what tells the engine that a stop string is complete in a chat's text; None without any.

    It reads the answer a second time, in the engine's thread, so that the engine stops at once and not when
    the reader has come so far.
    """
    stream = ReplyStream(tokenizer, stop_strings)

    def check(token_id: int) -> bool:
        stream.push(token_id)
        return stream.stopped

    return check if stop_strings else None


def completion_stop_check(
    tokenizer: Tokenizer, stop_strings: Sequence[str], prompt: Sequence[int]
) -> StopCheck | None:
    """Return the same for the continuation of ``prompt``."""
    detokenizer = IncrementalDetokenizer(tokenizer, stop_strings)
    detokenizer.follow(prompt)

    def check(token_id: int) -> bool:
        detokenizer.push(token_id)
        return detokenizer.stopped

    return check if stop_strings else None


class _Logprobs:
    """Collect the log-probabilities of tokens whose text is not certain yet."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._anchor = tokenizer.special_tokens.prefix[1]
        self._anchor_length = len(tokenizer.decode([self._anchor]))
        self._held: list[TokenLogprob] = []

    @property
    def blank(self) -> bool:
        """Whether nothing but white space is held."""
        return not any(token.text.strip() for token in self._held)

    def push(self, produced: Sequence[Produced]) -> None:
        for token in produced:
            if token.logprob is None or token.id in self._tokenizer.special_tokens.stop_ids:
                continue
            top = tuple(TokenLogprob(id_, self._text(id_), logprob) for id_, logprob in token.top_logprobs)
            self._held.append(TokenLogprob(token.id, self._text(token.id), token.logprob, top))

    def take(self) -> tuple[TokenLogprob, ...]:
        held, self._held = tuple(self._held), []
        return held

    def drop(self) -> None:
        self._held.clear()

    def _text(self, token_id: int) -> str:
        """Decode behind an anchor: alone, a piece would lose the space it begins with."""
        return self._tokenizer.decode([self._anchor, token_id])[self._anchor_length :]


def _call(reply: Reply) -> ToolCall | None:
    """Return the call an answer asks for; code to run is a call of the interpreter."""
    if reply.code is not None:
        return ToolCall(INTERPRETER, {"code": reply.code})
    return reply.tool_call
