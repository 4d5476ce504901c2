"""How to generate: limits, choice of tokens, and when to stop."""

from __future__ import annotations

from attrs import field, frozen

from glm3.domain.errors import InvalidInputError

__all__ = ["GenerationConfig"]


@frozen(kw_only=True)
class GenerationConfig:
    """Validated generation options.

    Exactly one limit holds: ``max_new_tokens`` counts answer tokens, ``max_length`` counts prompt plus
    answer; given both, ``max_new_tokens`` wins, given none, the model's ``seq_length`` is ``max_length``.

    ``do_sample`` false is greedy and makes ``temperature``, ``top_k`` and ``top_p`` inert. ``top_k`` 0 is
    off. ``stop_ids`` end a row and stay in its output; ``stop_strings`` end it and are cut from its text.
    ``seed`` None draws anew each time, an int repeats. ``vocab_size`` is the first id that must never be
    produced (the padding rows of the output layer lie beyond it).

    Raises:
        InvalidInputError: a value is out of range.
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
    stop_ids: frozenset[int] = field(default=frozenset(), converter=frozenset)
    stop_strings: tuple[str, ...] = field(default=(), converter=tuple)
    seed: int | None = None
    vocab_size: int | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("max_new_tokens", "max_length", "vocab_size"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, "a positive number", value)
        _require(self.min_new_tokens >= 0, "min_new_tokens", "at least 0", self.min_new_tokens)
        _require(
            self.temperature > 0, "temperature", "above 0 (for greedy set do_sample=False)", self.temperature
        )
        _require(self.top_k >= 0, "top_k", "at least 0 (0 is off)", self.top_k)
        _require(0 < self.top_p <= 1, "top_p", "above 0 and at most 1", self.top_p)
        _require(self.repetition_penalty > 0, "repetition_penalty", "above 0", self.repetition_penalty)
        _require(self.num_beams >= 1, "num_beams", "at least 1", self.num_beams)
        _require(
            self.num_beams == 1 or not self.do_sample,
            "num_beams",
            "1 together with do_sample",
            self.num_beams,
        )
        _require(all(self.stop_strings), "stop_strings", "non-empty texts", self.stop_strings)
        _require(self.seed is None or self.seed >= 0, "seed", "None or at least 0", self.seed)

    def new_token_limit(self, prompt_length: int, seq_length: int) -> int:
        """Return how many tokens may follow a prompt, never beyond the model's context; may be below 1."""
        room = seq_length - prompt_length
        if self.max_new_tokens is not None:
            return min(self.max_new_tokens, room)
        return min(self.max_length or seq_length, seq_length) - prompt_length


def _require(met: bool, name: str, expected: str, found: object) -> None:
    if not met:
        raise InvalidInputError("invalid generation option", field=name, expected=expected, found=found)
