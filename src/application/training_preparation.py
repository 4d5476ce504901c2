"""Prepare a training run: resolve, check and count everything, and load nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from glm3.application.checkpoint_keeper import SavePolicy
from glm3.application.model_source import ModelSources
from glm3.application.plan import memory_plan
from glm3.application.training_checks import (
    require_disk,
    require_same_data,
    require_tokenizer_of,
    require_vocabulary,
    require_weights,
)
from glm3.application.training_loop import EvaluationPolicy, TrainingRows
from glm3.application.training_start import TrainingStart, find_start
from glm3.domain.errors import BackendError, ConfigError, MissingFileError
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.host import Host
from glm3.domain.ports.model import LanguageModel
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.run_config import RunConfig, check_for
from glm3.domain.run_config.data import DatasetConfig
from glm3.domain.run_config.training import CallbackConfig
from glm3.domain.tensors import DType
from glm3.domain.training.batch_plan import BatchPlan
from glm3.domain.training.checkpoint_names import free_prefix, in_order
from glm3.domain.training.memory_plan import MemoryPlan, parameter_count
from glm3.domain.training.options import TrainOptions
from glm3.domain.training.output_tree import OutputTree
from glm3.domain.training.schedules import LearningRateSchedule
from glm3.domain.training.setup import learning_rate_schedule, train_options

__all__ = ["OpenRows", "PreparedRun", "RowsRequest", "TrainingPreparation"]


@frozen(kw_only=True)
class RowsRequest:
    """Rows to open: a data set's section (``key`` names it), and how this rank's batches are cut."""

    key: str
    dataset: DatasetConfig
    tokenizer: Tokenizer
    batch: BatchPlan
    rank: int
    world_size: int
    strict: bool


class OpenRows(Protocol):
    """Read and encode the rows of a data set, reporting every fault of it."""

    def __call__(self, request: RowsRequest) -> TrainingRows: ...


@frozen(kw_only=True)
class PreparedRun:
    """A run of which everything is known but the weights' numbers."""

    tree: OutputTree
    start: TrainingStart
    tokenizer: Tokenizer
    tokenizer_path: Path
    rows: TrainingRows
    batch: BatchPlan
    epochs: int
    total_steps: int
    schedule: LearningRateSchedule
    options: TrainOptions
    saving: SavePolicy
    prefix: str
    data: Mapping[str, Any]
    memory: MemoryPlan
    notes: tuple[str, ...] = ()

    def facts(self) -> list[str]:
        """Tell what is about to happen."""
        count = parameter_count(self.start.config)
        begun = f", going on from {self.start.checkpoint}" if self.start.checkpoint else ""
        return [
            f"model: {self.start.base or 'random weights'}, {count} parameters{begun}",
            f"data: {self.rows.num_rows} rows, {self.batch.global_batch} a step",
            f"run: {self.epochs} epochs of {self.rows.steps_per_epoch} steps, {self.total_steps} in all, {self.start.steps_done} done",
            f"memory planned: {self.memory.total / 1e9:.2f} GB",
        ]


@frozen(kw_only=True)
class TrainingPreparation:
    """The checks and look-ups of a run, with the ports they need."""

    sources: ModelSources
    stores: Sequence[CheckpointStore]
    load_tokenizer: Callable[[Path], Tokenizer]
    open_rows: OpenRows
    communicator: Communicator
    host: Host

    def prepare(self, config: RunConfig, run_mode: str | None = None, *, strict: bool = False) -> PreparedRun:
        """Check a run and return what it needs.

        Raises:
            MultipleFaultsError, ConfigError: the configuration cannot be run.
            MissingFileError, InvalidInputError: a file is missing; a row, checkpoint or tokenizer is wrong.
            StorageError: the disk is too small.
        """
        world_size = self.communicator.world_size
        check_for(config, run_mode, device_count=world_size)
        dataset = config.train_dataset
        assert dataset is not None  # noqa: S101  # check_for saw to it
        facts = self.host.facts()
        if config.context.device_target == "Ascend" and not facts.ascend.present:
            raise BackendError(
                "there is no Ascend device in this machine",
                field="context.device_target",
                expected="CPU",
                found="Ascend",
                hint="add context.device_target=CPU to the command to train on the CPU",
            )
        saving = _monitor(config)
        tree = OutputTree(
            Path(config.output_dir),
            self.communicator.rank,
            Path(saving.directory) if saving and saving.directory else None,
        )
        start = find_start(config, self.sources, self.stores, tree)
        tokenizer_path = _tokenizer_path(dataset, start)
        require_tokenizer_of(start, tokenizer_path)
        tokenizer = self.load_tokenizer(tokenizer_path)
        require_vocabulary(tokenizer, start.config, tokenizer_path)
        require_weights(start, self.stores)
        batch = BatchPlan.of(config, world_size)
        rows = self.open_rows(
            RowsRequest(
                key="train_dataset",
                dataset=dataset,
                tokenizer=tokenizer,
                batch=batch,
                rank=self.communicator.rank,
                world_size=world_size,
                strict=strict,
            )
        )
        epochs = config.runner_config.epochs * dataset.repeat
        total_steps = epochs * rows.steps_per_epoch
        options = train_options(config)
        data = {
            "num_rows": rows.num_rows,
            "global_batch": batch.global_batch,
            "seed": dataset.seed,
            "shuffle": dataset.data_loader.shuffle,
            "drop_remainder": dataset.drop_remainder,
        }
        require_same_data(start, data)
        if start.steps_done >= total_steps:
            raise ConfigError(
                "the run is complete already",
                path=start.checkpoint,
                field="runner_config.epochs",
                expected=f"more than {start.steps_done // rows.steps_per_epoch}",
                found=epochs,
                hint="raise runner_config.epochs to train on",
            )
        policy = _policy(saving, total_steps)
        require_disk(
            tree.root,
            _bytes_to_write(start, options, policy, total_steps - start.steps_done),
            "the checkpoints of the run",
        )
        return PreparedRun(
            tree=tree,
            start=start,
            tokenizer=tokenizer,
            tokenizer_path=tokenizer_path,
            rows=rows,
            batch=batch,
            epochs=epochs,
            total_steps=total_steps,
            schedule=learning_rate_schedule(config, batch, rows.steps_per_epoch, total_steps),
            options=options,
            saving=policy,
            prefix=_prefix(saving, start, tree),
            data=data,
            memory=memory_plan(config, start.config, facts, world_size),
            notes=(*config.notices, *rows.notes, *_inert_keys(config)),
        )

    def evaluation(
        self, config: RunConfig, run: PreparedRun, model: LanguageModel
    ) -> EvaluationPolicy | None:
        """Return when and how to evaluate while training, if the run asks for it."""
        return None


def _monitor(config: RunConfig) -> CallbackConfig | None:
    found = [callback for callback in config.callbacks if callback.type == "CheckpointMonitor"]
    return found[0] if found else None


def _policy(saving: CallbackConfig | None, total_steps: int) -> SavePolicy:
    if saving is None:
        return SavePolicy(every_steps=total_steps, keep=1)
    return SavePolicy(
        every_steps=saving.save_checkpoint_steps,
        keep=saving.keep_checkpoint_max,
        network=saving.save_network_params,
        trainable=saving.save_trainable_params,
    )


def _prefix(saving: CallbackConfig | None, start: TrainingStart, tree: OutputTree) -> str:
    """Return the old prefix for a run that goes on where it was left, else one that no file bears."""
    folder = tree.checkpoint
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if start.checkpoint is not None and start.checkpoint.parent.resolve() == folder.resolve():
        own = [name for name in in_order(names) if name.prefix == start.prefix]
        if own and own[-1].file_name == start.checkpoint.name:
            return own[-1].prefix
    return free_prefix(saving.prefix if saving else "CKP", tree.rank, names)


def _tokenizer_path(dataset: DatasetConfig, start: TrainingStart) -> Path:
    given = dataset.tokenizer.vocab_file
    path = Path(given) if given else start.tokenizer
    if path is None:
        raise ConfigError(
            "no tokenizer",
            field="train_dataset.tokenizer.vocab_file",
            expected="the path of tokenizer.model",
            hint="there is none beside load_checkpoint either",
        )
    if not path.is_file():
        raise MissingFileError("no such file", path=path, field="train_dataset.tokenizer.vocab_file")
    return path


def _bytes_to_write(start: TrainingStart, options: TrainOptions, policy: SavePolicy, steps_left: int) -> int:
    """Return the bytes of the checkpoints kept at most at one time, and of the finished model."""
    count, stored = parameter_count(start.config), start.config.param_init_type
    states = 12 if options.master_weights and stored is not DType.FLOAT32 else 8
    saves = steps_left // policy.every_steps + 1
    checkpoints = min(saves, policy.keep + 1) * (stored.itemsize + states)
    alone = (int(policy.network) + int(policy.trainable)) * min(saves, 2) * stored.itemsize
    return count * (checkpoints + alone + stored.itemsize)


def _inert_keys(config: RunConfig) -> list[str]:
    """Name switches of the file that ask for something this program does otherwise or not at all."""
    notes = []
    if config.profile:
        notes.append("profile: nothing is profiled")
    if any(callback.async_save for callback in config.callbacks):
        notes.append("callbacks.async_save: training waits for a checkpoint to be on the disk")
    return notes
