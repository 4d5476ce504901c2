"""Prepare a training run: resolve, check and count everything, and load nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from glm3.application.auto_transform import AutoTransform
from glm3.application.checkpoint_keeper import SavePolicy
from glm3.application.evaluate import EvaluateRequest, ScoreTexts
from glm3.application.evaluation_setup import evaluation_policy, evaluation_request, roomy
from glm3.application.model_source import ModelSources
from glm3.application.plan import memory_plan
from glm3.application.rank_agreement import RankAgreement
from glm3.application.row_sources import OpenPairs, OpenRows, RowsRequest, TrainingRows
from glm3.application.saving_setup import bytes_to_write, checkpoint_prefix, output_tree, save_policy
from glm3.application.training_checks import (
    require_adapter,
    require_device,
    require_disk,
    require_same_data,
    require_same_sharing,
    require_steps_left,
    require_tokenizer_of,
    require_vocabulary,
    require_weights,
)
from glm3.application.training_loop import EvaluationPolicy
from glm3.application.training_start import TrainingStart, find_start, require_same_ways
from glm3.domain.errors import ConfigError, MissingFileError
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.host import Host
from glm3.domain.ports.model import LanguageModel
from glm3.domain.ports.strategy_store import StrategyStore
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.run_config import RunConfig, check_for
from glm3.domain.run_config.data import DatasetConfig
from glm3.domain.training.adapters import AdapterConfig
from glm3.domain.training.batch_plan import BatchPlan
from glm3.domain.training.cut_checks import require_trainable
from glm3.domain.training.memory_plan import MemoryPlan, parameter_count
from glm3.domain.training.options import TrainOptions
from glm3.domain.training.output_tree import OutputTree
from glm3.domain.training.schedules import LearningRateSchedule
from glm3.domain.training.setup import adapter_config, learning_rate_schedule, network_cut, train_options

__all__ = ["PreparedRun", "TrainingPreparation"]


@frozen(kw_only=True)
class PreparedRun:
    """A run of which everything is known but the weights' numbers.

    ``sharing`` is the number of ranks that share the optimizer or the network and store parts of
    checkpoints, None where each stores everything.
    """

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
    adapter: AdapterConfig | None
    saving: SavePolicy
    prefix: str
    data: Mapping[str, Any]
    memory: MemoryPlan
    sharing: int | None = None
    evaluation: EvaluateRequest | None = None
    notes: tuple[str, ...] = ()

    @property
    def shares_network(self) -> bool:
        """Whether ranks share the network's matrices, so that none has all of it."""
        return self.options.cut is not None and self.options.cut.model_parallel > 1

    def facts(self) -> list[str]:
        """Tell what is about to happen."""
        count = parameter_count(self.start.config)
        each = " a rank" if self.batch.data_ranks > 1 else ""
        epochs = f"{self.epochs} epoch{'s' if self.epochs != 1 else ''}"
        begun = f", going on from {self.start.checkpoint}" if self.start.checkpoint else ""
        return [
            f"model: {self.start.base or 'random weights'}, {count} parameters{begun}",
            f"data: {self.rows.num_rows} rows, {self.batch.global_batch} a step",
            f"run: {self.total_steps} steps in {epochs}, {self.start.steps_done} done",
            f"memory planned: {self.memory.total / 1e9:.2f} GB{each}",
        ]


@frozen(kw_only=True)
class TrainingPreparation:
    """The checks and look-ups of a run, with the ports they need."""

    sources: ModelSources
    stores: Sequence[CheckpointStore]
    strategies: StrategyStore
    load_tokenizer: Callable[[Path], Tokenizer]
    open_rows: OpenRows
    open_pairs: OpenPairs
    score_texts: ScoreTexts
    communicator: Communicator
    host: Host

    def prepare(self, config: RunConfig, run_mode: str | None = None, *, strict: bool = False) -> PreparedRun:
        """Check a run and return what it needs.

        Raises:
            MultipleFaultsError, ConfigError: the configuration cannot be run.
            MissingFileError, InvalidInputError: a file is missing; a row, checkpoint or tokenizer is wrong.
            StorageError: the disk is too small.
            BackendError: the device that is asked for is not there.
        """
        world_size = self.communicator.world_size
        check_for(config, run_mode, device_count=world_size)
        if config.only_save_strategy:
            raise ConfigError(
                "this run writes its strategy files and trains nothing",
                field="only_save_strategy",
                expected=False,
                found=True,
                hint="glm3 finetune and glm3 run write them",
            )
        dataset = config.train_dataset
        assert dataset is not None  # noqa: S101  # check_for saw to it
        facts = self.host.facts()
        require_device(config.context.device_target, facts)
        tree = output_tree(config, self.communicator.rank)
        agreement = RankAgreement(self.communicator)
        transform = AutoTransform(stores=self.stores, strategies=self.strategies, agreement=agreement)
        config = transform.apply(config, self.communicator.rank, world_size)
        start = find_start(config, self.sources, self.stores, tree, agreement)
        cut, adapter = network_cut(config, world_size), adapter_config(config)
        sharing = None
        if cut is not None:
            adapted = adapter is not None
            require_trainable(cut, world_size, start.config, adapted=adapted, evaluated=config.do_eval)
            sharing = world_size if cut.optimizer_parallel or cut.model_parallel > 1 else None
        require_same_ways(start, cut)
        require_same_sharing(start, self.communicator.rank, sharing)
        tokenizer_path, tokenizer = self._tokenizer(dataset, start)
        require_weights(start, self.stores, adapted=adapter is not None or start.adapter is not None)
        batch = BatchPlan.of(config, world_size)
        rows = self.open_rows(
            RowsRequest(
                dataset=dataset,
                tokenizer=tokenizer,
                batch=batch,
                rank=self.communicator.rank,
                world_size=world_size,
                strict=strict,
            )
        )
        data = _data_identity(dataset, rows, batch)
        require_same_data(start, data)
        epochs = config.runner_config.epochs * dataset.repeat
        total_steps = epochs * rows.steps_per_epoch
        start = _skipping(config, start, rows.steps_per_epoch)
        require_steps_left(start, rows.steps_per_epoch, total_steps)
        evaluation = None
        if config.do_eval and config.eval_dataset is not None:
            evaluation = evaluation_request(config, tokenizer, self.open_pairs, strict=strict)
            start = evolve(start, config=roomy(start.config, config.eval_dataset))
        options, saving = evolve(train_options(config), cut=cut), save_policy(config, total_steps)
        require_adapter(start, adapter)
        nbytes = bytes_to_write(start, options, saving, total_steps - start.steps_done, adapter)
        require_disk(tree.root, nbytes, "the checkpoints of the run")
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
            adapter=adapter,
            saving=saving,
            prefix=checkpoint_prefix(config, start, tree, agreement),
            data=data,
            sharing=sharing,
            memory=memory_plan(config, start.config, facts, world_size),
            evaluation=evaluation,
            notes=(
                *config.notices,
                *rows.notes,
                *(evaluation.notes if evaluation else ()),
                *_inert_keys(config),
            ),
        )

    def evaluation(
        self, config: RunConfig, run: PreparedRun, model: LanguageModel
    ) -> EvaluationPolicy | None:
        """Return when and how to evaluate ``model`` while it is trained, if the run asks for it."""
        if run.evaluation is None:
            return None
        policy = evaluation_policy(config, run.evaluation, model, run.tokenizer, self.score_texts)
        agreement = RankAgreement(self.communicator)
        return evolve(policy, evaluate=lambda: agreement.first_ranks(policy.evaluate))

    def _tokenizer(self, dataset: DatasetConfig, start: TrainingStart) -> tuple[Path, Tokenizer]:
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
        require_tokenizer_of(start, path)
        tokenizer = self.load_tokenizer(path)
        require_vocabulary(tokenizer, start.config, path)
        return path, tokenizer


def _data_identity(dataset: DatasetConfig, rows: TrainingRows, batch: BatchPlan) -> dict[str, Any]:
    """Return what decides which rows a step takes."""
    return {
        "num_rows": rows.num_rows,
        "global_batch": batch.global_batch,
        "seed": dataset.seed,
        "shuffle": dataset.data_loader.shuffle,
        "drop_remainder": dataset.drop_remainder,
    }


def _skipping(config: RunConfig, start: TrainingStart, steps_per_epoch: int) -> TrainingStart:
    """Leave out the first steps of a run that is not resumed, where its file says so."""
    runner = config.runner_config
    skipped = runner.initial_epoch * steps_per_epoch + runner.initial_step
    return start if start.checkpoint is not None else evolve(start, steps_done=skipped)


def _inert_keys(config: RunConfig) -> list[str]:
    """Name switches of the file that ask for something this program does otherwise or not at all."""
    notes = []
    network = config.model.model_config
    if network.pre_seq_len is not None and config.model.pet_config is None:
        notes.append("model_config.pre_seq_len: no prefix is trained without pet_config.pet_type: ptuning2")
    if config.profile:
        notes.append("profile: nothing is profiled")
    if any(callback.async_save for callback in config.callbacks):
        notes.append("callbacks.async_save: training waits for a checkpoint to be on the disk")
    return notes
