"""Use case: tell the memory that a run takes before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

from glm3.application.adapted_source import base_name, find_adapter
from glm3.application.checkpoint_stores import config_beside
from glm3.application.model_source import ModelSources
from glm3.domain.host import HostFacts
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.layout.tensor_parallel import TensorParallel
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.run_config import RunConfig, check_sizes
from glm3.domain.tensors import DType
from glm3.domain.training.adapters import AdapterConfig, trained_count, trained_shapes
from glm3.domain.training.batch_plan import BatchPlan
from glm3.domain.training.memory_plan import DEVICE, HOST, MemoryPlan, plan_memory
from glm3.domain.training.prefix import PrefixConfig
from glm3.domain.training.setup import adapter_config, network_cut, train_options

__all__ = ["memory_plan", "network_of", "plan_run"]


def plan_run(
    config: RunConfig, sources: ModelSources, stores: Sequence[CheckpointStore], facts: HostFacts
) -> MemoryPlan:
    """Return the plan of one rank of a run, of as many ranks as its file cuts it into.

    Raises:
        MultipleFaultsError: its lengths, adapter or ranks contradict each other.
        UsageError: ``load_checkpoint`` names no model.
        ConfigError: it is an adapter whose base is not here.
    """
    check_sizes(config)
    network = network_of(config, sources, stores)
    world_size = config.parallel_config.ranks if config.use_parallel else 1
    return memory_plan(config, network, facts, world_size)


def network_of(config: RunConfig, sources: ModelSources, stores: Sequence[CheckpointStore]) -> ModelConfig:
    """Return the network that a run's file means, without a look at its weights.

    What lies beside ``load_checkpoint`` counts where the file says nothing; a checkpoint that is not there
    yet says nothing either.

    Raises:
        UsageError: ``load_checkpoint`` names no model.
        ConfigError: it is an adapter whose base is not here.
    """
    name, network = config.load_checkpoint, config.model.model_config
    keys = config.model.pet_config
    alpha = None if keys is None else keys.lora_alpha
    if name and (adapter := find_adapter(Path(name), sources, stores, alpha=alpha)) is not None:
        name = base_name(adapter, sources, network.checkpoint_name_or_path)
    path = Path(name) if name else None
    if name and path and (name.removeprefix("mindspore/") in sources.names() or path.is_dir()):
        network = config.model.onto(sources.config(name))
    elif path and path.is_file() and (own := config_beside(path)) is not None:
        network = config.model.onto(own)
    return network


def _row_length(config: RunConfig, network: ModelConfig) -> int:
    dataset = config.train_dataset
    if dataset is None:
        return network.seq_length
    if dataset.data_loader.type == "ADGenDataLoader":
        return dataset.max_source_length + dataset.max_target_length + 1
    return dataset.max_seq_length


def memory_plan(config: RunConfig, network: ModelConfig, facts: HostFacts, world_size: int) -> MemoryPlan:
    """Return the plan of one rank of a run that trains ``network``, on the device that the run names."""
    batch, adapter = BatchPlan.of(config, world_size), adapter_config(config)
    cut = network_cut(config, world_size)
    embedding = network.padded_vocab_size if cut is not None and cut.vocab_emb_dp else None
    on_device = config.context.device_target == "Ascend"
    limit = config.context.max_device_memory
    if on_device:
        available = int(float(limit.removesuffix("GB")) * (1 << 30)) if limit else None
    else:
        available = facts.memory_available
    return plan_memory(
        network if cut is None else TensorParallel(network, cut.model_parallel, cut.vocab_emb_dp).own_config,
        train_options(config),
        rows=batch.rows_per_pass,
        seq_length=_row_length(config, network),
        accumulates=batch.passes > 1,
        fused=on_device or facts.compiler is not None,
        activation_bytes=network.compute_dtype.itemsize if on_device else 4,
        place=DEVICE if on_device else HOST,
        available=available,
        trained=None if adapter is None else trained_count(network, adapter),
        prefix=adapter.length if isinstance(adapter, PrefixConfig) else 0,
        kv_rows=config.runner_config.batch_size if config.do_eval else 0,
        shards=batch.data_ranks,
        shared=0 if cut is None else _shared_count(cut, network, adapter),
        embedding_rows=embedding,
    )


def _shared_count(cut: NetworkCut, network: ModelConfig, adapter: AdapterConfig | None) -> int:
    """Return how many of the trained numbers are in parameters whose states ranks share."""
    shapes = parameter_shapes(network) if adapter is None else trained_shapes(network, adapter)
    itemsize = network.param_init_type.itemsize if adapter is None else DType.FLOAT32.itemsize
    layouts = {name: cut.layout(name, shape, itemsize) for name, shape in shapes.items()}
    return sum(
        prod(layout.slice_shape(shapes[name])) * layout.optimizer_shards
        for name, layout in layouts.items()
        if layout.optimizer_shards > 1
    )
