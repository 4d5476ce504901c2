"""What one request may ask for."""

from __future__ import annotations

from attrs import field, frozen, validators

__all__ = ["DEFAULT_OUTPUT_TOKENS", "ServiceLimits"]

DEFAULT_OUTPUT_TOKENS = 1024
"""The longest answer where nobody says otherwise: that of ChatGLM3's own server."""

_positive = validators.gt(0)


@frozen(kw_only=True)
class ServiceLimits:
    """Bounds of every request.

    ``prompt_tokens`` and ``output_tokens`` None means what a slot of the engine holds. Where a request names
    no limit, ``default_output_tokens`` holds; None is what the model's folder says, or else
    ``DEFAULT_OUTPUT_TOKENS``.
    """

    prompt_tokens: int | None = field(default=None, validator=validators.optional(_positive))
    output_tokens: int | None = field(default=None, validator=validators.optional(_positive))
    default_output_tokens: int | None = field(default=None, validator=validators.optional(_positive))
    choices: int = field(default=8, validator=_positive)
    stop_strings: int = field(default=16, validator=_positive)
    top_logprobs: int = field(default=20, validator=validators.ge(0))
    seconds: float = field(default=600.0, validator=validators.gt(0.0))
