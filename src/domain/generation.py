"""How to generate, and what comes of it: options, single tokens, finished rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite
from numbers import Integral
from typing import Any, Literal

from attrs import evolve, field, frozen

from glm3.domain.conversation import FinishReason, Usage
from glm3.domain.errors import InvalidInputError
from glm3.domain.special_tokens import SpecialTokens

__all__ = ["Cancel", "Generation", "GenerationConfig", "StopCheck", "Token"]

Cancel = Callable[[], bool]
"""Asked between two steps of the model; once true, generation ends."""

StopCheck = Callable[[int], bool]
"""Told each new id of one row that is no stop id; true ends the row (a stop string is complete)."""


def _as_ids(value: int | Iterable[int]) -> frozenset[int]:
    return frozenset((int(value),) if isinstance(value, Integral) else map(int, value))  # type: ignore[arg-type]


def _as_id_tuple(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(ids)


def _as_texts(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@frozen(kw_only=True)
class GenerationConfig:
    """Validated generation options.

    Exactly one limit holds: ``max_new_tokens`` counts answer tokens, ``max_length`` counts prompt plus
    answer; given both, ``max_new_tokens`` wins, given none, the model's ``seq_length`` is ``max_length``.

    ``do_sample`` false is greedy and makes ``temperature``, ``top_k`` and ``top_p`` inert. ``top_k`` 0 is
    off. ``stop_ids`` (one id or several) end a row and stay in its output; ``stop_strings`` end it and are
    cut from its text. ``seed`` None draws anew each time, an int repeats. ``vocab_size`` is the first id
    that must never be produced (the padding rows of the output layer lie beyond it). ``logprobs`` asks for
    the log-probability of each produced token. ``length_penalty`` is the exponent of the length that a
    beam's log-probability is divided by: above 0 favours long answers. ``early_stopping`` says when beams
    are done: True once ``num_beams`` have ended, False once the best one that goes on scores no better now
    than the worst of those, ``"never"`` once it cannot at any length. ``lookup`` lets what repeats be
    computed several tokens at a time, where the model can; it changes no token.

    Raises:
        InvalidInputError: a value is out of range, or two contradict each other.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    stop_ids: frozenset[int] = field(default=frozenset(), converter=_as_ids)
    stop_strings: tuple[str, ...] = field(default=(), converter=_as_texts)
    seed: int | None = None
    vocab_size: int | None = None
    logprobs: bool = False
    lookup: bool = True

    def __attrs_post_init__(self) -> None:
        for name in ("max_new_tokens", "max_length", "vocab_size"):
            value = getattr(self, name)
            _require(value is None or (_is_int(value) and value > 0), name, "a positive integer", value)
        for name in ("min_new_tokens", "top_k"):
            value = getattr(self, name)
            _require(_is_int(value) and value >= 0, name, "an integer of at least 0", value)
        _require(
            self.temperature > 0 and isfinite(self.temperature),
            "temperature",
            "above 0 (for greedy set do_sample=False)",
            self.temperature,
        )
        _require(0 < self.top_p <= 1, "top_p", "above 0 and at most 1", self.top_p)
        _require(
            self.repetition_penalty > 0 and isfinite(self.repetition_penalty),
            "repetition_penalty",
            "above 0 (1 is off)",
            self.repetition_penalty,
        )
        _require(-10 <= self.length_penalty <= 10, "length_penalty", "from -10 to 10", self.length_penalty)
        _require(
            isinstance(self.early_stopping, bool) or self.early_stopping == "never",
            "early_stopping",
            'True, False or "never"',
            self.early_stopping,
        )
        _require(
            _is_int(self.num_beams) and self.num_beams >= 1,
            "num_beams",
            "an integer of at least 1",
            self.num_beams,
        )
        _require(all(token >= 0 for token in self.stop_ids), "stop_ids", "ids from 0", sorted(self.stop_ids))
        _require(all(self.stop_strings), "stop_strings", "non-empty texts", self.stop_strings)
        _require(
            self.seed is None or (_is_int(self.seed) and self.seed >= 0),
            "seed",
            "None or an integer of at least 0",
            self.seed,
        )
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.num_beams > 1:
            _require(not self.do_sample, "num_beams", "1 together with do_sample", self.num_beams)
            _require(not self.stop_strings, "num_beams", "1 together with stop_strings", self.num_beams)
        if self.max_new_tokens is not None:
            _require(
                self.min_new_tokens <= self.max_new_tokens,
                "min_new_tokens",
                f"at most max_new_tokens = {self.max_new_tokens}",
                self.min_new_tokens,
            )

    def for_vocabulary(self, special: SpecialTokens) -> GenerationConfig:
        """Return these options with the ids that end a reply and the end of the vocabulary, where unset."""
        return evolve(
            self,
            stop_ids=self.stop_ids or special.stop_ids,
            vocab_size=self.vocab_size or special.vocab_size,
        )

    def new_token_limit(self, prompt_length: int, seq_length: int) -> int:
        """Return how many tokens may follow a prompt, never beyond the model's context; may be below 1."""
        room = seq_length - prompt_length
        if self.max_new_tokens is not None:
            return min(self.max_new_tokens, room)
        return min(self.max_length or seq_length, seq_length) - prompt_length


@frozen
class Token:
    """One produced token.

    ``finish_reason`` is set on a row's last token. ``logprob`` is the natural logarithm of the probability
    that the model itself gave, before any penalty, temperature or cut.
    """

    id: int
    logprob: float | None = None
    finish_reason: FinishReason | None = None


@frozen
class Generation:
    """One finished row: the prompt and what followed it, a stop id included."""

    ids: tuple[int, ...] = field(converter=_as_id_tuple)
    prompt_length: int
    finish_reason: FinishReason
    logprobs: tuple[float, ...] | None = None

    @property
    def new_ids(self) -> tuple[int, ...]:
        return self.ids[self.prompt_length :]

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt_length, len(self.ids) - self.prompt_length)


def _is_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _require(met: bool, name: str, expected: str, found: object) -> None:
    if not met:
        raise InvalidInputError("invalid generation option", field=name, expected=expected, found=found)
