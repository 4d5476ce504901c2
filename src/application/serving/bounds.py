"""What a request may ask for of one service, and what it is given where it says nothing."""

from __future__ import annotations

from attrs import evolve, frozen

from glm3.application.serving.limits import DEFAULT_OUTPUT_TOKENS, ServiceLimits
from glm3.domain.errors import ContextLengthError, InvalidInputError
from glm3.domain.generation import GenerationConfig
from glm3.domain.generation_defaults import GenerationDefaults

__all__ = ["RequestBounds"]


@frozen
class RequestBounds:
    """The bounds of a service whose engine holds ``slot_tokens`` of a prompt and its answer."""

    limits: ServiceLimits
    defaults: GenerationDefaults
    slot_tokens: int

    def check(self, options: GenerationConfig, choices: int, top_logprobs: int) -> None:
        """Refuse a request that asks for too much.

        Raises:
            InvalidInputError: it does.
        """
        limits, wanted, most = self.limits, options.max_new_tokens, self._most_tokens
        _require(wanted is None or wanted <= most, "max_tokens", f"at most {most}", wanted)
        _require(1 <= choices <= limits.choices, "n", f"1 to {limits.choices} answers", choices)
        _require(
            len(options.stop_strings) <= limits.stop_strings,
            "stop",
            f"at most {limits.stop_strings} texts",
            len(options.stop_strings),
        )
        _require(
            0 <= top_logprobs <= limits.top_logprobs,
            "top_logprobs",
            f"0 to {limits.top_logprobs}",
            top_logprobs,
        )

    def limited(self, options: GenerationConfig, prompt_length: int, field: str) -> GenerationConfig:
        """Return the options with a limit: their own, the service's, the model folder's, or the usual one.

        Raises:
            ContextLengthError: the prompt, called ``field``, leaves no room for an answer.
        """
        room = self.slot_tokens - 1
        most = min(self.limits.prompt_tokens or room, room)
        if prompt_length > most:
            hint = "shorten the conversation, or drop its oldest turns"
            raise _too_long(f"at most {most} tokens", prompt_length, field, hint)
        if options.max_new_tokens is not None:
            return options
        limit = self.limits.default_output_tokens
        if limit is None:
            limit = self.defaults.answer_tokens(prompt_length)
        if limit is None:
            limit = DEFAULT_OUTPUT_TOKENS
        if limit < 1:
            raise _too_long(
                f"fewer than {self.defaults.max_length} tokens, the max_length of the model's folder",
                prompt_length,
                field,
                hint="shorten the conversation, or name max_tokens in the request",
            )
        return evolve(options, max_new_tokens=min(limit, self._most_tokens))

    def time_limit(self, wanted: float | None) -> float:
        """Return the seconds that a request has."""
        return self.limits.seconds if wanted is None else min(wanted, self.limits.seconds)

    @property
    def _most_tokens(self) -> int:
        """The longest answer that can be asked for."""
        return min(self.limits.output_tokens or self.slot_tokens, self.slot_tokens)


def _too_long(expected: str, length: int, field: str, hint: str) -> ContextLengthError:
    return ContextLengthError(
        "the prompt is too long", field=field, expected=expected, found=f"{length} tokens", hint=hint
    )


def _require(met: bool, name: str, expected: str, found: object) -> None:
    if not met:
        raise InvalidInputError("out of this service's bounds", field=name, expected=expected, found=found)
