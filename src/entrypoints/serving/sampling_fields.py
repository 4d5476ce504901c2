"""The fields of a request that say how to generate."""

from __future__ import annotations

from typing import Any

from glm3.domain.generation import GenerationConfig
from glm3.domain.generation_defaults import GenerationDefaults
from glm3.entrypoints.serving.bounds import MOST_STOPS, MOST_TOKENS, SEEDS
from glm3.entrypoints.serving.fields import Fields

__all__ = ["read_options", "read_unused"]


def read_options(
    fields: Fields, max_tokens_names: tuple[str, ...], defaults: GenerationDefaults, *, logprobs: bool
) -> GenerationConfig:
    """Return the options that a request names; what it does not name is as ``defaults`` say.

    Beyond OpenAI's fields ``top_k``, ``min_tokens``, ``repetition_penalty`` and ``do_sample`` are read.
    Temperature 0 is greedy; without ``do_sample`` a temperature, ``top_p`` or ``top_k`` asks for sampling. As
    with OpenAI a temperature alone leaves ``top_p`` at 1, unless the defaults have one. Faults are left in
    ``fields``.
    """
    limit = _max_tokens(fields, max_tokens_names)
    temperature = fields.number("temperature", 0, 2)
    top_p = fields.number("top_p", 0, 1)
    top_k = fields.integer("top_k", 0, MOST_TOKENS)
    do_sample = fields.flag("do_sample")
    seed = fields.integer("seed", -SEEDS, SEEDS - 1)
    minimum = fields.integer("min_tokens", 0, MOST_TOKENS) or 0
    if limit is not None and minimum > limit:
        fields.fault("min_tokens", "more than the answer may have", f"at most {limit}", minimum)
        minimum = 0
    greedy = do_sample is False or temperature == 0 or top_p == 0
    if do_sample and greedy:
        fields.fault("do_sample", "contradicts the temperature or top_p of 0", "values above 0", True)
    shaped = any(value is not None for value in (temperature, top_p, top_k))
    beside_temperature = 1.0 if temperature is not None and defaults.top_p is None else None
    named = {
        "do_sample": not greedy if greedy or shaped else do_sample,
        "temperature": temperature or None,
        "top_p": beside_temperature if top_p is None else top_p or None,
        "top_k": top_k,
        "repetition_penalty": fields.number("repetition_penalty", 0.01, 100),
    }
    return GenerationConfig(
        max_new_tokens=limit,
        min_new_tokens=minimum,
        **defaults.sampling({name: value for name, value in named.items() if value is not None}),
        stop_strings=_stop(fields),
        seed=None if seed is None else seed % (2 * SEEDS),
        logprobs=logprobs,
    )


def read_unused(fields: Fields) -> None:
    """Accept what OpenAI's clients send and what has no effect here."""
    fields.ignore(
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "parallel_tool_calls",
    )
    fields.only("frequency_penalty", 0)
    fields.only("presence_penalty", 0)
    fields.only("logit_bias", {})
    fields.only("response_format", {"type": "text"})
    fields.only("modalities", ["text"])
    fields.only("num_beams", 1)


def _max_tokens(fields: Fields, names: tuple[str, ...]) -> int | None:
    given: dict[str, int] = {}
    for name in names:
        value = fields.integer(name, 1, MOST_TOKENS)
        if value is not None:
            given[name] = value
    if len(set(given.values())) > 1:
        name = list(given)[-1]
        fields.fault(name, "contradicts " + next(iter(given)), "the same number, or one of them", given[name])
    return next(iter(given.values()), None)


def _stop(fields: Fields) -> tuple[str, ...]:
    value: Any = fields.raw("stop")
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        fields.fault("stop", "neither text nor a list of texts", "text", value)
        return ()
    if len(texts) > MOST_STOPS:
        fields.fault("stop", "too many texts", f"at most {MOST_STOPS}", len(texts))
        return ()
    good = [
        text
        for i, text in enumerate(texts)
        if fields.is_text("stop" if text is value else f"stop[{i}]", text)
    ]
    if not all(good):
        fields.fault("stop", "an empty text would end every answer at once", "non-empty texts", value)
    return tuple(text for text in good if text)
