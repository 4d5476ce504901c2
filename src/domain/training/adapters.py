"""What can be trained beside a frozen network, whatever its method."""

from __future__ import annotations

from math import prod

from glm3.domain.model_config import ModelConfig
from glm3.domain.training.lora import LoRAConfig, adapter_shapes
from glm3.domain.training.prefix import PrefixConfig, prefix_shapes

__all__ = ["AdapterConfig", "trained_count", "trained_shapes"]

AdapterConfig = LoRAConfig | PrefixConfig


def trained_shapes(model: ModelConfig, adapter: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter that is trained with an adapter."""
    if isinstance(adapter, PrefixConfig):
        return prefix_shapes(model, adapter)
    return adapter_shapes(model, adapter)


def trained_count(model: ModelConfig, adapter: AdapterConfig) -> int:
    """Return how many numbers are trained with an adapter."""
    return sum(map(prod, trained_shapes(model, adapter).values()))
