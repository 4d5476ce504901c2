"""How much an engine may hold and do at once."""

from __future__ import annotations

from attrs import field, frozen, validators

from glm3.domain.model_config import ModelConfig

__all__ = ["EngineLimits", "slots_within"]

_MOST_SLOTS = 64
_VALUE_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


@frozen(kw_only=True)
class EngineLimits:
    """The engine's fixed budget.

    Args:
        slots: rows of the KV cache, so requests answered at once.
        slot_tokens: tokens a row holds, prompt and answer together.
        queue: requests that may wait for a slot.
        queue_per_client: requests of one client that may wait; None means no bound of its own.
        prefill_chunk: most prompt tokens in one call of the model.
        step_seconds: how long a call may take while somebody's answer is running, a quarter of what it may
            take otherwise; prompts are cut into chunks to fit.
    """

    slots: int = field(default=8, validator=validators.ge(1))
    slot_tokens: int = field(default=8192, validator=validators.ge(2))
    queue: int = field(default=256, validator=validators.ge(0))
    queue_per_client: int | None = field(default=None)
    prefill_chunk: int = field(default=512, validator=validators.ge(1))
    step_seconds: float = field(default=0.5, validator=validators.gt(0))


def slots_within(budget_bytes: int, config: ModelConfig, slot_tokens: int, cache_format: str = "fp32") -> int:
    """Return how many rows of a KV cache of that format fit the budget: at least 1, at most 64."""
    values = 2 * config.num_layers * config.num_kv_heads * config.kv_channels
    token_bytes = values * _VALUE_BYTES[cache_format]
    return max(1, min(_MOST_SLOTS, budget_bytes // (token_bytes * slot_tokens)))
