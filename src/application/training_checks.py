"""What is checked before a run loads anything heavy: tokenizer, weights, data of a resumed run, disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glm3.application.checkpoint_stores import find_store
from glm3.application.training_start import RUN_RECORD, TrainingStart
from glm3.domain.errors import BackendError, ConfigError, ParameterMismatchError, StorageError, TokenizerError
from glm3.domain.host import HostFacts
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameter_check import compare_parameters, require_shapes
from glm3.domain.parameters import from_mindspore_name
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.positional_io import free_bytes
from glm3.domain.quantization.rounded_checkpoint import refuse_rounded, rounded_checkpoint
from glm3.domain.training.adapters import AdapterConfig, trained_shapes
from glm3.domain.training.prefix import PrefixConfig

__all__ = [
    "require_adapter",
    "require_device",
    "require_disk",
    "require_same_data",
    "require_same_sharing",
    "require_steps_left",
    "require_tokenizer_of",
    "require_vocabulary",
    "require_weights",
]

_LARGEST_PADDING = 8
"""The output layer may have so many times fewer unused rows than rows: 65024 rows have 226."""


def require_adapter(start: TrainingStart, wanted: AdapterConfig | None) -> None:
    """Check that an adapter to train further is of the shape that the run asks for.

    Raises:
        ConfigError: the run trains no adapter, or one of another method or shape.
        ParameterMismatchError: the adapter is of another network.
    """
    stored = start.adapter
    if stored is None:
        return
    own, asked = _shape_of(stored.config, start.config), _shape_of(wanted, start.config)
    if own != asked:
        raise ConfigError(
            "the run does not train this adapter",
            path=stored.folder,
            field="model.model_config.pet_config",
            expected=own,
            found=asked,
        )
    shapes = {name: array.shape for name, array in stored.parameters.items()}
    require_shapes(shapes, trained_shapes(start.config, stored.config), stored.folder)


def _shape_of(adapter: AdapterConfig | None, network: ModelConfig) -> str:
    """Tell what must not change when an adapter is trained further, in the words of a run's file."""
    if adapter is None:
        return "none"
    if isinstance(adapter, PrefixConfig):
        inner = f", projection_dim {adapter.projection_size or network.hidden_size}"
        return f"pet_type ptuning2, pre_seq_len {adapter.length}, prefix_projection {adapter.projection}" + (
            inner if adapter.projection else ""
        )
    return f"pet_type lora, lora_rank {adapter.rank}, lora_alpha {adapter.alpha:g}"


def require_device(target: str, facts: HostFacts) -> None:
    """Check that the device a run asks for is in this machine.

    Raises:
        BackendError: it is not.
    """
    if target == "Ascend" and not facts.ascend.present:
        raise BackendError(
            "there is no Ascend device in this machine",
            field="context.device_target",
            expected="CPU",
            found=target,
            hint="add context.device_target=CPU to the command to train on the CPU",
        )


def require_vocabulary(tokenizer: Tokenizer, config: ModelConfig, path: Path | None) -> None:
    """Check that a tokenizer belongs to a network: every id has a row, and most rows have an id.

    Raises:
        TokenizerError: it is another model's.
    """
    ids, rows = tokenizer.special_tokens.vocab_size, config.padded_vocab_size
    if ids > rows or rows - ids > rows // _LARGEST_PADDING:
        raise TokenizerError(
            "the tokenizer does not belong to this model",
            path=path,
            expected=f"at most {rows} ids, and few less: padded_vocab_size is {rows}",
            found=f"{ids} ids",
            hint="train_dataset.tokenizer.vocab_file names the tokenizer.model of load_checkpoint",
        )


def require_tokenizer_of(start: TrainingStart, path: Path) -> None:
    """Check that a tokenizer file is the very one that lies beside the weights, where one does.

    Raises:
        TokenizerError: the two differ.
    """
    own = start.tokenizer
    if own is not None and own.resolve() != path.resolve() and own.read_bytes() != path.read_bytes():
        raise TokenizerError(
            "not the tokenizer of the model",
            path=path,
            field="train_dataset.tokenizer.vocab_file",
            expected=f"the same file as {own}",
            hint="leave vocab_file out to use the model's own",
        )


def require_weights(start: TrainingStart, stores: Sequence[CheckpointStore], *, adapted: bool) -> None:
    """Compare names and shapes of the weights with the network, reading headers only.

    Raises:
        ParameterMismatchError: with every parameter that is missing or of another shape.
        CheckpointError, MissingFileError: the weights cannot be read.
        ConfigError: they are rounded, and are to be trained themselves and not ``adapted``.
    """
    if start.weights is None:
        return
    with find_store(start.weights, stores).open(start.weights) as reader:
        if not adapted:
            refuse_rounded(
                reader, "trained", hint="train an adapter beside them: model.model_config.pet_config"
            )
        weights = rounded_checkpoint(reader, start.config.quantization_bit) or reader
        shapes = {from_mindspore_name(name): spec.shape for name, spec in weights.tensors.items()}
    differences = compare_parameters(shapes, start.config)
    if differences.missing or differences.mis_shaped:
        raise ParameterMismatchError(
            path=start.weights,
            missing=differences.missing,
            mis_shaped=differences.mis_shaped,
            hint=f"compare the checkpoint with model.model_config: glm3 inspect {start.weights}",
        )


def require_same_data(start: TrainingStart, data: Mapping[str, Any]) -> None:
    """Check that the steps of a run that goes on mean the rows they meant when it began.

    Raises:
        ConfigError: the rows, their order or the size of a batch have changed.
    """
    if start.checkpoint is None or start.record is None:
        return
    before = start.record.data
    changed = [name for name in data if before.get(name) != data[name]]
    if changed:
        raise ConfigError(
            "the data of the run to resume have changed, so its position in them means nothing",
            path=start.checkpoint.parent / RUN_RECORD,
            field=", ".join(changed),
            expected=", ".join(f"{name} {before.get(name)}" for name in changed),
            found=", ".join(f"{name} {data[name]}" for name in changed),
            hint="restore them, or begin anew from these weights with resume_training=False",
        )


def require_same_sharing(start: TrainingStart, rank: int, sharing: int | None) -> None:
    """Check that a part of a checkpoint is this rank's, of as many ranks as share the optimizer now.

    Raises:
        ConfigError: it is another's; the error says what to do.
    """
    record = start.record
    if start.checkpoint is None or record is None or record.sharing is None:
        return
    if (record.rank, record.sharing) != (rank, sharing):
        raise ConfigError(
            "the checkpoint is a part that fits another job",
            path=start.checkpoint,
            field="load_checkpoint",
            expected=f"the part of rank {rank}"
            + (f" of {sharing} ranks" if sharing else ", which has everything"),
            found=f"the part of rank {record.rank} of {record.sharing} ranks",
            hint="name the folder of all rank_N folders and start as many ranks, or join the parts with "
            "glm3 merge and go on from the result",
        )


def require_steps_left(start: TrainingStart, steps_per_epoch: int, total_steps: int) -> None:
    """Check that a run that goes on, or skips its first steps, has something left to do.

    Raises:
        ConfigError: it is complete.
    """
    if start.steps_done >= total_steps:
        raise ConfigError(
            "the run is complete already",
            path=start.checkpoint,
            field="runner_config.epochs",
            expected=f"more than {start.steps_done // steps_per_epoch}",
            found=total_steps // steps_per_epoch,
            hint="raise runner_config.epochs to train on",
        )


def require_disk(root: Path, nbytes: int, what: str) -> None:
    """Check that what a run will write fits the disk.

    Raises:
        StorageError: with the bytes needed and free.
    """
    free = free_bytes(root)
    if free < nbytes:
        raise StorageError(
            f"not enough space for {what}",
            path=root,
            expected=f"{nbytes / 1e9:.1f} GB",
            found=f"{free / 1e9:.1f} GB free",
            hint="free some space, choose another output_dir, or lower callbacks' keep_checkpoint_max",
        )
