"""How much memory a training step takes, from the configuration alone.

All figures are bytes of one rank. Per parameter: its weight, a float32 gradient, two float32 moments, and
where the network is stored narrower the float32 copy that is updated and, on the CPU, the float32 weight that
is computed with. Per position and layer, in floats, with H hidden_size, F ffn_hidden_size, Q rows of the
joint projection, A attention_size, V padded_vocab_size:

- fused kernels keep ``5 H + Q + 2 A + 3 F``, stock operators 2.5 times that and 5 rows of scores per head;
- the layer at work needs ``3 F`` more, and the loss 2 V floats (stock: 3 V);
- with recomputation every layer keeps H, and one of them the rest; but 0.9 of the 2.5 and 4 of the 5 rows lie
  in buffers of the stock operators themselves, of which each keeps its own however often it runs.

Gradients appear while activations go, so the two are not added up: the peak is the larger one and 0.4 of the
smaller. Accumulated gradients take 1.8 times their size more. A compiled graph costs a constant and an
amount per layer, half as much again with recomputation. The numbers are fitted to the peaks of 30 runs of
1 to 4 steps (MindSpore 2.10 on x86-64, 0.2 to 95 million parameters, 32 to 384 positions); see
docs/finetune.md.
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

__all__ = ["DEVICE", "HOST", "MemoryPlan", "parameter_count", "plan_memory"]

_FLOAT = 4
RUNTIME_BYTES = 455_000_000
"""What the interpreter, MindSpore and this program take before any model."""

HOST, DEVICE = "host", "device"
"""Where a plan is for. A device's own runtime has its room outside of what a run may take."""

_OVERLAP = 0.4
_ACCUMULATION = 1.8


@frozen(kw_only=True)
class _Kernels:
    """The appetite of a kernel set, in floats and in bytes of compiled graphs.

    What recomputation frees comes first; ``held_*`` it does not.
    """

    layer: float
    scores: float
    held_layer: float
    held_scores: float
    vocab: float
    graph: int
    graph_layer: int


_FUSED = _Kernels(
    layer=1.0,
    scores=0.0,
    held_layer=0.0,
    held_scores=0.0,
    vocab=2.0,
    graph=63_000_000,
    graph_layer=26_000_000,
)
# MindSpore's own count of 8 layers fell from 974 to 311 MB when they were recomputed, the process's from 2991
# to 2711 MB: the rest is neither in its pool nor in its count, and grows with rows of scores.
_STOCK = _Kernels(
    layer=1.6,
    scores=1.0,
    held_layer=0.9,
    held_scores=4.0,
    vocab=3.0,
    graph=160_000_000,
    graph_layer=50_000_000,
)


@frozen(kw_only=True)
class MemoryPlan:
    """Where the bytes of one rank go; ``available`` is what ``place`` has, if known."""

    place: str
    weights: int
    gradients: int
    optimizer: int
    activations: int
    graph: int
    kv_cache: int
    runtime: int
    available: int | None = None

    @property
    def total(self) -> int:
        return sum(self.parts().values())

    def parts(self) -> Mapping[str, int]:
        """Return the parts by name, in the order of a table."""
        names = ("weights", "gradients", "optimizer", "activations", "graph", "kv_cache", "runtime")
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
    fused: bool,
    place: str,
    available: int | None,
    activation_bytes: int = _FLOAT,
    trained: int | None = None,
    kv_rows: int = 0,
    prefix: int = 0,
    shards: int = 1,
    shared: int = 0,
    embedding_rows: int | None = None,
) -> MemoryPlan:
    """Return the plan of one rank that computes ``rows`` sequences of ``seq_length`` at once.

    ``trained`` counts the parameters of adapters, which are float32, where they are all that is trained.
    ``accumulates`` keeps a sum of gradients besides those of one pass. ``fused`` tells the kernel set.
    ``activation_bytes`` is 2 where the network computes in half precision. ``kv_rows`` are answered at once
    by an evaluation. ``prefix`` places stand in front of every layer's keys and values, which the stock
    operators attend to. ``shards`` ranks share the optimizer's states of ``shared`` of the trained
    parameters; weights and gradients each has whole. ``embedding_rows`` are those of the embedding where the
    rank has more of it than of the head, whose rows are the configuration's ``padded_vocab_size``.
    """
    count, adapters = parameter_count(config), trained is not None
    if embedding_rows is not None:
        count += (embedding_rows - config.padded_vocab_size) * config.hidden_size
    trained = count if trained is None else trained
    stored = config.param_init_type.itemsize
    copy = _FLOAT if config.param_init_type is not DType.FLOAT32 else 0
    kernels = _FUSED if fused else _STOCK
    on_device = place == DEVICE
    recompute = options.recompute
    gradients = trained * _FLOAT
    floats = _floats_per_position(config, seq_length, kernels, recompute, prefix)
    activations = int(activation_bytes * rows * seq_length * floats)
    if activations > gradients:
        gradients = int(gradients * _OVERLAP)
    else:
        activations = int(activations * _OVERLAP)
    if accumulates:
        gradients += int(trained * _FLOAT * _ACCUMULATION)
    share = shared if shards > 1 else 0
    if shards > 1:
        gradients += (trained - share + share // shards) * _FLOAT
    states = (trained - share) * (2 * _FLOAT + (0 if adapters else copy)) + share * 3 * _FLOAT // shards
    kv_values = 2 * config.num_layers * config.num_kv_heads * config.kv_channels
    return MemoryPlan(
        place=place,
        weights=count * (stored + (0 if on_device else copy)),
        gradients=gradients,
        optimizer=states,
        activations=activations,
        graph=0
        if on_device
        else kernels.graph + config.num_layers * kernels.graph_layer * (3 if recompute else 2) // 2,
        kv_cache=kv_rows * (prefix + seq_length) * kv_values * activation_bytes,
        runtime=0 if on_device else RUNTIME_BYTES,
        available=available,
    )


def _floats_per_position(
    config: ModelConfig, seq_length: int, kernels: _Kernels, recompute: bool, prefix: int
) -> float:
    """Return what one position holds at the moment at which most is held."""
    hidden, ffn = config.hidden_size, config.ffn_hidden_size
    layer = 5 * hidden + config.qkv_size + 2 * config.attention_size + 3 * ffn
    scores = config.num_attention_heads * (prefix + seq_length)
    attention = _STOCK if prefix else kernels
    freed = kernels.layer * layer + attention.scores * scores
    held = config.num_layers * (kernels.held_layer * layer + attention.held_scores * scores)
    kept = config.num_layers * hidden + freed if recompute else config.num_layers * freed
    return held + kept + 3 * ffn + kernels.vocab * config.padded_vocab_size


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
