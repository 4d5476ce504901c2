"""The sections about devices and ranks: context, parallel options, recomputation."""

from __future__ import annotations

from attrs import frozen

from glm3.domain.coercion import as_bool, as_text, optional
from glm3.domain.run_config.schema import key, section
from glm3.domain.run_config.values import (
    choice,
    integer_at_least,
    memory_size,
    parallel_mode,
    positive_number,
)

__all__ = [
    "DATA_PARALLEL_MODES",
    "ContextConfig",
    "MoeConfig",
    "ParallelConfig",
    "ParallelContextConfig",
    "RecomputeConfig",
    "StrategyConfig",
]


DATA_PARALLEL_MODES = (0, 3)
"""Values of ``parallel_mode`` in which the ranks are copies, however many ways ``parallel_config`` says."""


def _execution_mode(value: object) -> int:
    number = integer_at_least(0)(value)
    if number > 1:
        raise ValueError("0 (graph) or 1 (pynative)")
    return number


@frozen(kw_only=True)
class ContextConfig:
    """MindSpore's context."""

    mode: int = key(0, _execution_mode, "0 compiles a graph, 1 runs operator by operator")
    device_target: str = key("Ascend", choice("Ascend", "CPU"), "kind of device")
    device_id: int = key(0, integer_at_least(0), "device of a run on one device")
    enable_graph_kernel: bool = key(False, as_bool, "fuse operators")
    graph_kernel_flags: str = key("", as_text, "options of operator fusion")
    max_call_depth: int = key(10000, integer_at_least(1), "deepest call while compiling")
    max_device_memory: str | None = key(None, optional(memory_size), "most device memory used")
    save_graphs: bool = key(False, as_bool, "write compiled graphs")
    save_graphs_path: str | None = key(None, optional(as_text), "where")
    memory_optimize_level: str = key("O0", choice("O0", "O1"), "memory reuse while compiling")
    jit_level: str | None = key(None, optional(choice("O0", "O1", "O2")), "how a graph is compiled")


@frozen(kw_only=True)
class StrategyConfig:
    """The files that say how each rank's slice was cut."""

    save_file: str = key("./ckpt_strategy.ckpt", as_text, "where the slicing is written")
    load_file: str | None = key(None, optional(as_text), "slicing to read instead of making")
    only_trainable_params: bool = key(True, as_bool, "leave out frozen parameters")


@frozen(kw_only=True)
class ParallelContextConfig:
    """``parallel``: MindSpore's automatic parallelism."""

    parallel_mode: int = key(1, parallel_mode, "0 data, 1 semi-auto, 2 auto, 3 hybrid")
    gradients_mean: bool = key(False, as_bool, "average gradients instead of summing")
    loss_repeated_mean: bool = key(True, as_bool, "average a loss that several ranks compute")
    enable_alltoall: bool = key(False, as_bool, "allow all-to-all")
    full_batch: bool = key(True, as_bool, "every rank reads the global batch")
    search_mode: str = key(
        "sharding_propagation",
        choice("recursive_programming", "dynamic_programming", "sharding_propagation"),
        "how mode 2 looks for a slicing",
    )
    enable_parallel_optimizer: bool = key(False, as_bool, "slice optimizer states over data-parallel ranks")
    strategy_ckpt_config: StrategyConfig = section(StrategyConfig, "files of the slicing")


@frozen(kw_only=True)
class ParallelConfig:
    """``parallel_config``: how many ways each axis is cut."""

    data_parallel: int = key(1, integer_at_least(1), "copies of the network, each with its own rows")
    model_parallel: int = key(1, integer_at_least(1), "ranks that share a matrix")
    pipeline_stage: int = key(1, integer_at_least(1), "ranks that share the layers")
    expert_parallel: int = key(1, integer_at_least(1), "no effect on this network")
    micro_batch_num: int = key(1, integer_at_least(1), "pieces of a batch in the pipeline")
    vocab_emb_dp: bool = key(True, as_bool, "keep the embedding whole on every rank")
    gradient_aggregation_group: int = key(4, integer_at_least(1), "gradients reduced together")

    @property
    def ranks(self) -> int:
        """Devices that this needs."""
        return self.data_parallel * self.model_parallel * self.pipeline_stage


@frozen(kw_only=True)
class MoeConfig:
    """Mixture of experts: no effect on this network."""

    expert_num: int = key(1, integer_at_least(1), "experts")
    capacity_factor: float = key(1.05, positive_number, "room of an expert")
    aux_loss_factor: float = key(0.05, positive_number, "weight of the balance loss")
    num_experts_chosen: int = key(1, integer_at_least(1), "experts of a token")


@frozen(kw_only=True)
class RecomputeConfig:
    """Drop activations in the forward pass and compute them again in the backward pass."""

    recompute: bool = key(False, as_bool, "do so")
    parallel_optimizer_comm_recompute: bool = key(False, as_bool, "repeat the optimizer's gathers too")
    mp_comm_recompute: bool = key(True, as_bool, "repeat model-parallel communication too")
    recompute_slice_activation: bool = key(False, as_bool, "slice what is kept, with model_parallel above 1")
