"""From the keys of a run to its checkpoints: where, how often, under which names, how many bytes."""

from __future__ import annotations

from pathlib import Path

from glm3.application.checkpoint_keeper import SavePolicy
from glm3.application.rank_agreement import RankAgreement
from glm3.application.training_start import TrainingStart
from glm3.domain.run_config import RunConfig
from glm3.domain.run_config.training import CallbackConfig
from glm3.domain.tensors import DType
from glm3.domain.training.adapters import AdapterConfig, trained_count
from glm3.domain.training.checkpoint_names import CheckpointName, free_run, in_order, prefix_of
from glm3.domain.training.memory_plan import parameter_count
from glm3.domain.training.options import TrainOptions
from glm3.domain.training.output_tree import OutputTree

__all__ = ["bytes_to_write", "checkpoint_prefix", "output_tree", "save_policy"]

_DEFAULT_PREFIX = "CKP"


def output_tree(config: RunConfig, rank: int) -> OutputTree:
    """Return where a run writes."""
    monitor = _monitor(config)
    elsewhere = monitor.directory if monitor else None
    return OutputTree(Path(config.output_dir), rank, Path(elsewhere) if elsewhere else None)


def save_policy(config: RunConfig, total_steps: int) -> SavePolicy:
    """Return how often to save; without a checkpoint callback only the end is saved.

    A run of adapters saves what it trains, and not the network beside it, which stays as it was.
    """
    monitor, adapters = _monitor(config), config.model.pet_config is not None
    if monitor is None:
        return SavePolicy(every_steps=total_steps, keep=1, network=not adapters, trainable=adapters)
    return SavePolicy(
        every_steps=monitor.save_checkpoint_steps,
        keep=monitor.keep_checkpoint_max,
        network=monitor.save_network_params and not adapters,
        trainable=monitor.save_trainable_params or adapters,
    )


def checkpoint_prefix(
    config: RunConfig, start: TrainingStart, tree: OutputTree, agreement: RankAgreement
) -> str:
    """Return the old prefix for a run that goes on where it was left, else one that no rank's file bears."""
    folder, monitor = tree.checkpoint, _monitor(config)
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    own: list[CheckpointName] = []
    if start.checkpoint is not None and start.checkpoint.parent.resolve() == folder.resolve():
        own = [name for name in in_order(names) if name.prefix == start.prefix]
    # Of ranks that were killed while they saved, some have one more.
    latest = agreement.any(lambda: bool(own) and own[-1].file_name == _name(start))
    if own and latest:
        return own[-1].prefix
    prefix = monitor.prefix if monitor else _DEFAULT_PREFIX
    return prefix_of(prefix, tree.rank, agreement.largest(free_run(prefix, tree.rank, names)))


def bytes_to_write(
    start: TrainingStart,
    options: TrainOptions,
    policy: SavePolicy,
    steps_left: int,
    adapter: AdapterConfig | None = None,
) -> int:
    """Return the bytes of the checkpoints that lie there at most at one time, and of the result."""
    count, stored = parameter_count(start.config), start.config.param_init_type
    if adapter is not None:
        count, stored = trained_count(start.config, adapter), DType.FLOAT32
    states = 12 if options.master_weights and stored is not DType.FLOAT32 else 8
    saves = steps_left // policy.every_steps + 1
    checkpoints = min(saves, policy.keep + 1) * (stored.itemsize + states)
    alone = (int(policy.network) + int(policy.trainable)) * min(saves, 2) * stored.itemsize
    return count * (checkpoints + alone + stored.itemsize)


def _name(start: TrainingStart) -> str | None:
    return None if start.checkpoint is None else start.checkpoint.name


def _monitor(config: RunConfig) -> CallbackConfig | None:
    return next((callback for callback in config.callbacks if callback.type == "CheckpointMonitor"), None)
