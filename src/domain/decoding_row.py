"""One row on its way: its prompt, checked, what was produced so far, and whether it has ended."""

from __future__ import annotations

from collections.abc import Sequence

from glm3.domain.conversation import FinishReason
from glm3.domain.errors import ContextLengthError, InvalidInputError
from glm3.domain.generation import Generation, GenerationConfig, StopCheck, Token
from glm3.domain.opening import Opening
from glm3.domain.ports.model import FloatArray, LanguageModel
from glm3.domain.sampling import Sampler

__all__ = ["DecodingRow", "producible_ids"]


class DecodingRow:
    """Choose a row's tokens until it ends.

    Args:
        model: whose vocabulary holds.
        prompt: ids, not empty.
        options: limits, choice of tokens, stop ids.
        context: tokens that fit, prompt and answer together.
        row: its place in the batch, part of the random seed.
        stop_check: may end the row at an id that is no stop id.
        openings: the answer begins with one of these sequences of ids; empty leaves it free.
        name: what errors call the prompt.

    Raises:
        ContextLengthError: the prompt leaves no room for an answer.
        InvalidInputError: the prompt is empty or has an id the model does not know.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Sequence[int],
        options: GenerationConfig,
        context: int,
        *,
        row: int = 0,
        stop_check: StopCheck | None = None,
        openings: Sequence[Sequence[int]] = (),
        name: str = "prompt",
    ) -> None:
        self.prompt = _checked_ids(prompt, model.config.padded_vocab_size, name)
        self.limit = _checked_limit(len(self.prompt), options, context, name)
        self.looks_up = options.lookup
        self.finish_reason: FinishReason | None = None
        self._stop_ids = options.stop_ids
        self._stop_check = stop_check
        self._sampler = Sampler(options, producible_ids(model, options), self.prompt, row)
        self._opening = Opening(openings)
        self._new_ids: list[int] = []
        self._logprobs: list[float] | None = [] if options.logprobs else None

    @property
    def last(self) -> int:
        """The token produced last."""
        return self._new_ids[-1]

    @property
    def left(self) -> int:
        """How many more tokens may be produced."""
        return self.limit - len(self._new_ids)

    def take(self, scores: FloatArray) -> Token:
        """Choose the next token by the model's scores ``(padded_vocab_size,)``; it may end the row."""
        token, logprob = self._sampler.choose(scores, self._opening.allowed())
        self._opening.accept(token)
        self._new_ids.append(token)
        if self._logprobs is not None and logprob is not None:
            self._logprobs.append(logprob)
        if token in self._stop_ids or (self._stop_check is not None and self._stop_check(token)):
            self.finish_reason = FinishReason.STOP
        elif len(self._new_ids) >= self.limit:
            self.finish_reason = FinishReason.LENGTH
        return Token(token, logprob, self.finish_reason)

    def result(self) -> Generation:
        """Return the row as it stands; one that has not ended was cancelled."""
        return Generation(
            (*self.prompt, *self._new_ids),
            len(self.prompt),
            self.finish_reason or FinishReason.CANCELLED,
            None if self._logprobs is None else tuple(self._logprobs),
        )


def producible_ids(model: LanguageModel, options: GenerationConfig) -> int:
    """Return the first id that must never be produced."""
    padded = model.config.padded_vocab_size
    return padded if options.vocab_size is None else min(options.vocab_size, padded)


def _checked_ids(prompt: Sequence[int], padded_vocab_size: int, name: str) -> tuple[int, ...]:
    ids = tuple(map(int, prompt))
    if not ids:
        raise InvalidInputError(
            "the prompt is empty",
            field=name,
            expected="at least one id",
            found="none",
            hint="[gMASK] sop starts one",
        )
    if min(ids) < 0 or max(ids) >= padded_vocab_size:
        position, found = next((i, id_) for i, id_ in enumerate(ids) if not 0 <= id_ < padded_vocab_size)
        raise InvalidInputError(
            "the model knows no such id",
            field=f"{name}[{position}]",
            expected=f"0 to {padded_vocab_size - 1}",
            found=found,
            hint="does the tokenizer belong to this model?",
        )
    return ids


def _checked_limit(prompt_length: int, options: GenerationConfig, context: int, name: str) -> int:
    limit = options.new_token_limit(prompt_length, context)
    if limit >= 1:
        return limit
    if prompt_length < context:
        total, what = prompt_length + limit, "max_length"
        hint = "max_length counts prompt and answer together: raise it, or set max_new_tokens instead"
    else:
        total, what = context, "the context"
        hint = "shorten the prompt, or drop the oldest turns"
    raise ContextLengthError(
        "the prompt leaves no room for an answer",
        field=name,
        expected=f"fewer than {total} prompt tokens ({what})",
        found=f"{prompt_length} prompt tokens",
        hint=hint,
    )
