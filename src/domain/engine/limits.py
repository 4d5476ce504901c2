"""How much an engine may hold and do at once."""

from __future__ import annotations

from attrs import field, frozen, validators

from glm3.domain.errors import InvalidInputError
from glm3.domain.model_config import ModelConfig

__all__ = ["EngineLimits", "limits_within"]

_MOST_SLOTS = 64
_SLOTS_FOR_EACH_WHOLE = 4  # that fits: few requests are as long as they may be
_VALUE_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


@frozen(kw_only=True)
class EngineLimits:
    """The engine's fixed budget.

    Args:
        slots: requests answered at once.
        slot_tokens: tokens of a request, prompt and answer together.
        pool_tokens: tokens the KV cache holds, all requests together; None means all slots full.
        kept: ended conversations whose keys and values stay until their place is needed.
        queue: requests that may wait for a slot.
        queue_per_client: requests of one client that may wait; None means no bound of its own.
        prefill_chunk: most prompt tokens in one call of the model.
        step_seconds: how long a call may take while somebody's answer is running, a quarter of what it may
            take otherwise; prompts are cut into chunks to fit.
        lookup: whether what repeats may be computed several tokens at a time, where the model can; it
            changes no token.

    Raises:
        InvalidInputError: the cache could not hold one request of full length.
    """

    slots: int = field(default=8, validator=validators.ge(1))
    slot_tokens: int = field(default=8192, validator=validators.ge(2))
    pool_tokens: int | None = field(default=None)
    kept: int = field(default=64, validator=validators.ge(0))
    queue: int = field(default=256, validator=validators.ge(0))
    queue_per_client: int | None = field(default=None)
    prefill_chunk: int = field(default=512, validator=validators.ge(1))
    step_seconds: float = field(default=0.5, validator=validators.gt(0))
    lookup: bool = field(default=True)

    def __attrs_post_init__(self) -> None:
        if self.pool_tokens is not None and self.pool_tokens < self.slot_tokens:
            raise InvalidInputError(
                "the KV cache must hold one request of full length",
                field="pool_tokens",
                expected=f"at least slot_tokens = {self.slot_tokens} tokens",
                found=self.pool_tokens,
                hint="allow more with --kv-memory, or set --slot-tokens lower",
            )


def limits_within(
    budget_bytes: int,
    config: ModelConfig,
    cache_format: str = "fp32",
    *,
    slots: int | None = None,
    slot_tokens: int | None = None,
    queue: int = 256,
    lookup: bool = True,
) -> EngineLimits:
    """Return limits for a KV cache of that format and at most so many bytes.

    Without ``slot_tokens`` a request may have the model's context, or what the cache holds if that is less.

    Raises:
        InvalidInputError: the cache would not hold one request of ``slot_tokens``.
    """
    values = 2 * config.num_layers * config.num_kv_heads * config.kv_channels
    pool = budget_bytes // (values * _VALUE_BYTES[cache_format])
    tokens = min(slot_tokens or max(2, pool), config.seq_length)
    fitting = max(1, min(_MOST_SLOTS, _SLOTS_FOR_EACH_WHOLE * pool // tokens))
    return EngineLimits(
        slots=slots or fitting, slot_tokens=tokens, pool_tokens=pool, queue=queue, lookup=lookup
    )
