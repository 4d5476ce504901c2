"""Use case: train a model on rows, as a run's configuration says, and leave one that can be chatted with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from glm3.application.adapter_folder import ADAPTER_CONFIG_NAME, add_adapter, config_bytes, write_adapter
from glm3.application.adapters_in_weights import NetworkReader
from glm3.application.base_identity import BaseIdentity
from glm3.application.checkpoint_keeper import CheckpointKeeper
from glm3.application.checkpoint_stores import find_store, store_of_format
from glm3.application.journals import Journals
from glm3.application.model_source import TOKENIZER_NAME
from glm3.application.rank_agreement import RankAgreement
from glm3.application.training_loop import LoopResult, TrainingLoop
from glm3.application.training_preparation import PreparedRun, TrainingPreparation
from glm3.application.training_result import hugging_face_files, take_part, write_model_folder
from glm3.application.training_start import RunRecord
from glm3.domain.errors import BackendError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.backend import LoadOptions, ModelBackend
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.model import LanguageModel
from glm3.domain.ports.run_journal import RunJournal
from glm3.domain.ports.strategy_store import StrategyStore
from glm3.domain.ports.training import SupportsShares, SupportsTraining, Trainer
from glm3.domain.run_config import RunConfig
from glm3.domain.training.checkpoint_names import LAST, CheckpointName
from glm3.domain.training.job_cut import job_cut
from glm3.domain.training.run_events import CheckpointSaved, RunEnded, RunNote, RunStarted
from glm3.domain.training.run_state import RunState

__all__ = ["FinetuneReport", "FinetuneRequest", "FinetuneService"]

MODEL_YAML = "glm3.yaml"


@frozen(kw_only=True)
class FinetuneRequest:
    """What to train.

    ``run_mode`` is the configuration's own unless given. ``strict`` makes a row that would be skipped an
    error. ``ignore_memory`` starts although the plan says that the machine is too small. ``stop`` is asked
    after every step and ends the run early, saved.
    """

    config: RunConfig
    run_mode: str | None = None
    strict: bool = False
    ignore_memory: bool = False
    stop: Callable[[], bool] = lambda: False


@frozen(kw_only=True)
class FinetuneReport:
    """What came of it. ``model_folder`` (or an adapter's) is None while the run is not complete.

    Memory is in bytes.
    """

    loop: LoopResult
    total_steps: int
    checkpoint: Path
    model_folder: Path | None
    peak_memory: int
    next_command: str
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Tell it to people."""
        loop = self.loop
        told = [f"trained {loop.steps_done} of {self.total_steps} steps in {loop.seconds:.1f} s"]
        if loop.first_loss is not None and loop.last_loss is not None:
            told.append(f"loss {loop.first_loss:.4f} at first, {loop.last_loss:.4f} at last")
        if loop.tokens_per_second is not None:
            told.append(f"{loop.tokens_per_second:.0f} tokens/s")
        told.append(f"peak memory {self.peak_memory / 1e9:.2f} GB")
        if loop.best_step is not None:
            told.append(f"best step {loop.best_step} (score {loop.best_score:.4f})")
        told.append(f"checkpoint {self.checkpoint}")
        if self.model_folder is not None:
            told.append(f"model {self.model_folder}")
        return [*told, f"next: {self.next_command}"]


@frozen(kw_only=True)
class FinetuneService:
    """Prepare, load, train, save.

    ``open_journal`` is given the log folder and the sink mode; ``model_yaml`` makes the file that lies
    beside weights in MindFormers' layout; ``peak_memory`` tells the process's own.
    """

    preparation: TrainingPreparation
    backend: ModelBackend
    communicator: Communicator
    strategies: StrategyStore
    open_journal: Callable[[Path, bool], RunJournal]
    model_yaml: Callable[[ModelConfig], bytes]
    peak_memory: Callable[[], int]

    def run(self, request: FinetuneRequest, display: RunJournal) -> FinetuneReport:
        """Train and return what came of it; ``display`` is told every event besides the files.

        Everything that can be checked is checked before weights are loaded.

        Raises:
            MultipleFaultsError, ConfigError: the configuration cannot be run.
            MissingFileError, InvalidInputError: a file is missing; a row, checkpoint or tokenizer is wrong.
            StorageError: the disk is too small or refused.
            BackendError: the machine is too small, or cannot run what is asked for.
            TrainingError: the loss makes no sense any more.
        """
        prepared = self.preparation.prepare(request.config, request.run_mode, strict=request.strict)
        if not request.ignore_memory:
            prepared.memory.require_fit()
        files = self.open_journal(prepared.tree.log, request.config.runner_config.sink_mode)
        journal = Journals((files, display))
        try:
            report = self._train(request, prepared, journal)
            RankAgreement(self.communicator).wait()
            return report
        finally:
            journal.close()

    def _train(self, request: FinetuneRequest, run: PreparedRun, journal: RunJournal) -> FinetuneReport:
        config = request.config
        model = self._load(run, request.config.context.device_target)
        if not isinstance(model, SupportsTraining):
            raise BackendError("this backend cannot train", found=type(model).__name__)
        self._adapt(run, model)
        trainer = model.trainer(run.options, self.communicator)
        self._restore(run, trainer)
        journal.record(
            RunStarted(
                total_steps=run.total_steps,
                steps_per_epoch=run.rows.steps_per_epoch,
                epochs=run.epochs,
                rows_per_step=run.batch.global_batch,
                steps_done=run.start.steps_done,
                rank=self.communicator.rank,
                world_size=self.communicator.world_size,
                facts=tuple(run.facts()),
            )
        )
        for note in run.notes:
            journal.record(RunNote(note))
        keeper = self._keeper(config, run)
        self._record_cut(run)
        agreement = RankAgreement(self.communicator)
        loop = TrainingLoop(
            trainer=trainer,
            rows=run.rows,
            schedule=run.schedule,
            keeper=keeper,
            journal=journal,
            total_steps=run.total_steps,
            steps_done=run.start.steps_done,
            data_ranks=run.batch.data_ranks,
            evaluation=self.preparation.evaluation(config, run, model),
            stop=lambda: agreement.any(request.stop),
        ).run()
        report = self._finish(run, trainer, keeper, journal, loop)
        journal.record(RunEnded(step=loop.steps_done, seconds=loop.seconds, summary=tuple(report.lines())))
        return report

    def _load(self, run: PreparedRun, target: str) -> LanguageModel:
        config = run.start.config
        kernels = "ascend" if target == "Ascend" else "auto"
        options = LoadOptions(
            kernels=kernels,
            dtype=config.param_init_type,
            seed=run.options.seed,
            adaptable=run.adapter is not None,
        )
        if run.start.weights is None:
            return self.backend.load(config, None, options)
        store = find_store(run.start.weights, self.preparation.stores)
        adapter = run.start.adapter
        with store.open(run.start.weights) as reader:
            network = reader if adapter is None or adapter.network is None else NetworkReader(reader)
            return self.backend.load(config, network, options)

    def _adapt(self, run: PreparedRun, model: LanguageModel) -> None:
        """Add the adapter that is to be trained: a fresh one, or one that was trained before."""
        if run.adapter is None:
            return
        adapted = add_adapter(model, run.adapter, run.options.seed)
        if run.start.adapter is not None:
            adapted.set_adapter_parameters(run.start.adapter.parameters)

    def _restore(self, run: PreparedRun, trainer: Trainer) -> None:
        checkpoint = run.start.checkpoint
        if checkpoint is None:
            return
        with find_store(checkpoint, self.preparation.stores).open(checkpoint) as reader:
            state = RunState.read(reader, run.rows.steps_per_epoch)
        trainer.restore(state.parameters, state.trainer_state)

    def _record_cut(self, run: PreparedRun) -> None:
        """Write what the checkpoints do not say: what they build on, and what they are parts of."""
        rank, network = self.communicator.rank, run.start.config
        ways = 1 if run.options.cut is None else run.options.cut.model_parallel
        record = RunRecord(
            base=run.start.base, data=run.data, rank=rank, sharing=run.sharing, model_parallel=ways
        )
        record.write(run.tree.checkpoint)
        if run.options.cut is None:
            return
        job = job_cut(network, run.adapter, run.options.cut)
        self.strategies.write(run.tree.strategy_of(rank), job.stages[0])

    def _keeper(self, config: RunConfig, run: PreparedRun) -> CheckpointKeeper:
        trained: dict[str, bytes] = {}
        if run.adapter is None:
            companions = hugging_face_files(run.start.config, run.tokenizer_path)
        else:  # an adapter alone makes no model; of its base checkpoints tell the name alone, not the hash
            trained = {ADAPTER_CONFIG_NAME: config_bytes(run.adapter, BaseIdentity(name=run.start.base))}
            companions = trained
        model_files = {MODEL_YAML: self.model_yaml(run.start.config)}
        if TOKENIZER_NAME in companions:
            model_files[TOKENIZER_NAME] = companions[TOKENIZER_NAME]
        return CheckpointKeeper(
            tree=run.tree,
            store=store_of_format("ckpt", self.preparation.stores),
            prefix=run.prefix,
            sink_size=run.batch.sink_size(config, run.rows.steps_per_epoch),
            policy=run.saving,
            companions=companions,
            model_files=model_files,
            trained_files=trained,
            wait=RankAgreement(self.communicator).wait,
        )

    def _finish(
        self,
        run: PreparedRun,
        trainer: Trainer,
        keeper: CheckpointKeeper,
        journal: RunJournal,
        loop: LoopResult,
    ) -> FinetuneReport:
        checkpoint = run.tree.checkpoint / keeper.name_of(loop.steps_done).file_name
        folder: Path | None = None
        if loop.interrupted:
            command = f"glm3 finetune with resume_training=True load_checkpoint={run.tree.checkpoint / LAST}"
        else:
            named = CheckpointName.parse(checkpoint.name)
            kind = "model" if run.adapter is None else "adapter"
            folder = run.tree.result(kind, named.run if named else 0)
            if self.communicator.rank == 0:
                journal.record(self._write_result(run, trainer, folder, loop.steps_done))
            elif run.shares_network and isinstance(trainer, SupportsShares):
                take_part(trainer.complete_parameters())
            command = f"glm3 chat -m {folder}"
        return FinetuneReport(
            loop=loop,
            total_steps=run.total_steps,
            checkpoint=checkpoint,
            model_folder=folder,
            peak_memory=self.peak_memory(),
            next_command=command,
            notes=run.notes,
        )

    def _write_result(self, run: PreparedRun, trainer: Trainer, folder: Path, step: int) -> CheckpointSaved:
        stores = self.preparation.stores
        if run.shares_network and isinstance(trainer, SupportsShares):
            parameters = trainer.complete_parameters()
        else:
            parameters = trainer.parameters()
        if run.adapter is not None:
            base = BaseIdentity.of(run.start.base, run.start.weights)
            return write_adapter(folder, parameters, run.adapter, base, stores, step)
        files = hugging_face_files(run.start.config, run.tokenizer_path)
        return write_model_folder(folder, parameters, files, stores, step)
