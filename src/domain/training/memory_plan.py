"""How much memory a training step takes, from the configuration alone.

All figures are bytes of one rank. Per parameter: its weight, a float32 gradient, two float32 moments, and a
float32 master copy where the optimizer keeps one. Per token and layer: what the backward pass reads again.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from attrs import frozen

from glm3.domain.errors import BackendError
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes
from glm3.domain.tensors import DType
from glm3.domain.training.options import TrainOptions

__all__ = ["MemoryPlan", "parameter_count", "plan_memory"]

_FLOAT = 4
RUNTIME_BYTES = 480_000_000
"""What the interpreter and MindSpore take before any model."""


@frozen(kw_only=True)
class MemoryPlan:
    """Where the bytes of one rank go; ``available`` is what ``place`` has, if known."""

    place: str
    weights: int
    gradients: int
    optimizer: int
    activations: int
    kv_cache: int
    runtime: int
    available: int | None = None

    @property
    def total(self) -> int:
        return sum(self.parts().values())

    def parts(self) -> Mapping[str, int]:
        """Return the parts by name, in the order of a table."""
        names = ("weights", "gradients", "optimizer", "activations", "kv_cache", "runtime")
        return {name: getattr(self, name) for name in names}

    @property
    def fits(self) -> bool:
        return self.available is None or self.total <= self.available

    def require_fit(self) -> None:
        """Refuse what does not fit.

        Raises:
            BackendError: with the figures, and the key whose change helps most.
        """
        if self.fits or self.available is None:
            return
        figures = ", ".join(f"{name} {_gb(size)}" for name, size in self.parts().items() if size)
        raise BackendError(
            f"the run does not fit the memory of the {self.place}: {figures}",
            expected=f"at most {_gb(self.available)}",
            found=_gb(self.total),
            hint=self.advice(),
        )

    def advice(self) -> str:
        """Return the knob to turn, by the part that is largest."""
        states = self.weights + self.gradients + self.optimizer
        if self.activations > states:
            return (
                "lower runner_config.batch_size and raise gradient_accumulation_steps by the same factor, "
                "set recompute_config.recompute=True, or shorten the sequences"
            )
        return (
            "train adapters only (model.model_config.pet_config, see configs/glm3/lora_glm3_6b.yaml), "
            "or share the optimizer's state among more ranks (parallel_config.data_parallel)"
        )


def parameter_count(config: ModelConfig) -> int:
    """Return the number of parameters of a network."""
    return sum(prod(shape) for shape in parameter_shapes(config).values())


def plan_memory(
    config: ModelConfig,
    options: TrainOptions,
    *,
    rows: int,
    seq_length: int,
    accumulates: bool,
    place: str,
    available: int | None,
    trained: int | None = None,
    kv_rows: int = 0,
    shards: int = 1,
) -> MemoryPlan:
    """Return the plan of one rank that computes ``rows`` sequences of ``seq_length`` at once.

    ``trained`` counts the trainable parameters, all by default. ``accumulates`` keeps a sum of gradients
    besides those of one pass. ``kv_rows`` are answered at once by an evaluation. ``shards`` ranks share
    weights, gradients and optimizer.
    """
    count = parameter_count(config)
    trained = count if trained is None else trained
    stored = config.param_init_type.itemsize
    master = _FLOAT if options.master_weights and config.param_init_type is not DType.FLOAT32 else 0
    kv_values = 2 * config.num_layers * config.num_kv_heads * config.kv_channels
    return MemoryPlan(
        place=place,
        weights=count * stored // shards,
        gradients=trained * _FLOAT * (2 if accumulates else 1) // shards,
        optimizer=trained * (2 * _FLOAT + master) // shards,
        activations=rows * seq_length * _per_token(config, options.recompute),
        kv_cache=kv_rows * seq_length * kv_values * _FLOAT,
        runtime=RUNTIME_BYTES,
        available=available,
    )


def _per_token(config: ModelConfig, recompute: bool) -> int:
    """Return the bytes that one position holds at the moment at which most is held."""
    hidden, ffn = config.hidden_size, config.ffn_hidden_size
    layer = 4 * hidden + config.qkv_size + 2 * config.attention_size + 3 * ffn
    scores = 2 * config.padded_vocab_size
    kept = config.num_layers * hidden + layer if recompute else config.num_layers * layer
    return _FLOAT * (kept + scores)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
