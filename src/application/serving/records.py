"""What a caller asks for, and what it is answered, without a word about HTTP or gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from attrs import field, frozen

from glm3.domain.conversation import FinishReason, Message, ToolCall, ToolSpec, Usage
from glm3.domain.generation import GenerationConfig

__all__ = [
    "ChatRequest",
    "CompletionRequest",
    "Delta",
    "FinishDelta",
    "ServedModel",
    "TextDelta",
    "ThoughtDelta",
    "TokenLogprob",
    "Tokenized",
    "ToolCallDelta",
    "ToolChoice",
    "ToolMode",
    "UsageDelta",
]


class ToolMode(StrEnum):
    """Whether the model may, must, or must not call a tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@frozen
class ToolChoice:
    """How tools are used; ``name`` picks one of them and goes with ``REQUIRED``."""

    mode: ToolMode = ToolMode.AUTO
    name: str | None = None


@frozen(kw_only=True)
class ChatRequest:
    """The next turn of a dialogue.

    Args:
        messages: the dialogue so far; a system message comes first and names no tools.
        options: how to generate; without ``max_new_tokens`` the service's default holds.
        model: which one to ask; None is the one that is served.
        tools: what the model may call.
        tool_choice: whether it may.
        choices: how many answers to give.
        top_logprobs: likeliest alternatives to report with each token, with ``options.logprobs``.
        time_limit: seconds the caller will wait; the service's own limit holds as well.
    """

    messages: tuple[Message, ...] = field(converter=tuple[Message, ...])
    options: GenerationConfig
    model: str | None = None
    tools: tuple[ToolSpec, ...] = field(default=(), converter=tuple[ToolSpec, ...])
    tool_choice: ToolChoice = ToolChoice()
    choices: int = 1
    top_logprobs: int = 0
    time_limit: float | None = None


@frozen(kw_only=True)
class CompletionRequest:
    """Text to continue, without any turns.

    ``prompts`` are texts, or ids that are taken as they are. Answers are numbered through: those of the
    first prompt first. ``echo`` puts the prompt's text before each answer.
    """

    prompts: tuple[str | Sequence[int], ...] = field(converter=tuple[str | Sequence[int], ...])
    options: GenerationConfig
    model: str | None = None
    choices: int = 1
    top_logprobs: int = 0
    echo: bool = False
    time_limit: float | None = None


@frozen
class TokenLogprob:
    """A token's text and log-probability, and the likeliest alternatives at its place, best first."""

    id: int
    text: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@frozen
class TextDelta:
    """More text of an answer; ``logprobs`` are the tokens it came from, where they were asked for."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@frozen
class ThoughtDelta:
    """The text so far was the thought before a tool call; it is the text of the deltas before this one."""

    choice: int
    text: str


@frozen
class ToolCallDelta:
    """The model asks for a call."""

    choice: int
    call: ToolCall


@frozen
class FinishDelta:
    """The end of one answer.

    ``tool_call_error`` says why a call could not be read and was sent as text. ``messages`` are the turns to
    add to the dialogue: the prompt they make has the model's own ids.
    """

    choice: int
    reason: FinishReason
    tool_call_error: str | None = None
    messages: tuple[Message, ...] = field(default=(), eq=False, repr=False)


@frozen
class UsageDelta:
    """The end of all answers; ``cached_tokens`` of the prompt's needed no computing."""

    usage: Usage
    cached_tokens: int


Delta = TextDelta | ThoughtDelta | ToolCallDelta | FinishDelta | UsageDelta


@frozen
class Tokenized:
    """The ids of a text and the text of each."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]


@frozen
class ServedModel:
    """A model that can be asked: its names, the usual one first, and when it was loaded (Unix time)."""

    names: tuple[str, ...]
    created: int
    context_tokens: int
