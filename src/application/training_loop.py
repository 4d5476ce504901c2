"""The loop of a training run: rows, step, guard, journal, checkpoints, evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from attrs import define, evolve, frozen

from glm3.application.checkpoint_keeper import CheckpointKeeper
from glm3.application.row_sources import TrainingRows
from glm3.domain.errors import Glm3Error, InvalidInputError, TrainingError
from glm3.domain.ports.run_journal import RunJournal
from glm3.domain.ports.training import StepReport, SupportsShares, Trainer
from glm3.domain.training.run_events import EvaluationDone, RunFailed, StepDone
from glm3.domain.training.run_guard import RunGuard, named_rows
from glm3.domain.training.run_state import RunState
from glm3.domain.training.schedules import LearningRateSchedule

__all__ = ["EvaluationPolicy", "LoopResult", "TrainingLoop"]


@frozen(kw_only=True)
class EvaluationPolicy:
    """When to evaluate, and which score decides which checkpoint is the best; an interval of -1 is off."""

    evaluate: Callable[[], Mapping[str, float]]
    score: str
    smaller_is_better: bool = False
    every_steps: int = -1
    every_epochs: int = -1

    def due(self, step: int, steps_per_epoch: int) -> bool:
        """Tell whether to evaluate after ``step`` steps."""
        by_step = self.every_steps > 0 and step % self.every_steps == 0
        epoch, rest = divmod(step, steps_per_epoch)
        return by_step or (self.every_epochs > 0 and not rest and epoch % self.every_epochs == 0)

    def better(self, new: float, old: float | None) -> bool:
        """Compare two values of the deciding score."""
        return old is None or (new < old if self.smaller_is_better else new > old)


@frozen(kw_only=True)
class LoopResult:
    """What a loop did. ``steps_done`` counts over the whole run, ``first_loss`` belongs to this process.

    ``tokens_per_second`` leaves out the first step, which compiles.
    """

    steps_done: int
    steps_here: int
    first_loss: float | None
    last_loss: float | None
    best_step: int | None
    best_score: float | None
    tokens_per_second: float | None
    seconds: float
    interrupted: bool


@define
class TrainingLoop:
    """Train from ``steps_done`` to ``total_steps``; ``stop`` is asked after every step.

    When it says so, the state is saved and the loop ends early.
    """

    trainer: Trainer
    rows: TrainingRows
    schedule: LearningRateSchedule
    keeper: CheckpointKeeper
    journal: RunJournal
    total_steps: int
    steps_done: int = 0
    data_ranks: int = 1
    evaluation: EvaluationPolicy | None = None
    stop: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic

    def run(self) -> LoopResult:
        """Train.

        Raises:
            TrainingError: the loss or the gradients make no sense any more, or nothing is learned; the
                rows of the step are named and no checkpoint of it is written.
            StorageError: a checkpoint could not be written.
        """
        try:
            return self._run()
        except Glm3Error as error:
            with suppress(Glm3Error):  # a full disk has no room for this line either
                self.journal.record(RunFailed(self.steps_done, str(error)))
            raise

    def _run(self) -> LoopResult:
        guard, pace, begun = RunGuard(), _Pace(), self.clock()
        first: float | None = None
        last: float | None = None
        best = self.keeper.best() if self.steps_done else None
        interrupted = False
        start = self.steps_done
        self.keeper.saved_step = start
        while self.steps_done < self.total_steps and not interrupted:
            report = self._step(guard, pace)
            first, last = report.loss if first is None else first, report.loss
            if self.steps_done % self.keeper.policy.every_steps == 0:
                self._save()
            best = self._evaluate_if_due(best)
            interrupted = self.stop()
        if self.keeper.saved_step < self.steps_done:
            self._save()
        return LoopResult(
            steps_done=self.steps_done,
            steps_here=self.steps_done - start,
            first_loss=first,
            last_loss=last,
            best_step=best and best[0],
            best_score=best and best[1],
            tokens_per_second=pace.tokens_per_second,
            seconds=self.clock() - begun,
            interrupted=interrupted and self.steps_done < self.total_steps,
        )

    def _step(self, guard: RunGuard, pace: _Pace) -> StepReport:
        number = self.steps_done
        places = self.rows.places(number)
        begun = self.clock()
        batches = self.rows.micro_batches(number)
        try:
            report = self.trainer.step(batches, self.schedule(number))
        except InvalidInputError as error:
            place = places[0] if places else None
            raise TrainingError(
                f"step {number + 1}: {error.message}; its rows: {named_rows(places)}",
                path=place.path if place else None,
                line=place.line if place else None,
                hint="glm3 data check finds rows whose answer is cut away or masked",
            ) from error
        seconds = self.clock() - begun
        self.steps_done = number + 1
        per_epoch = self.rows.steps_per_epoch
        pace.add(seconds, sum(b.input_ids.size for b in batches) * self.data_ranks)
        if number % per_epoch == 0:
            pace.new_epoch()
        rows = sum(len(batch.input_ids) for batch in batches)
        self.journal.record(
            StepDone(
                step=self.steps_done,
                epoch=number // per_epoch + 1,
                epoch_step=number % per_epoch + 1,
                report=report,
                mean_loss=pace.mean_loss(report),
                seconds=seconds,
                rows_per_second=rows / seconds if seconds else 0.0,
                tokens_per_second=pace.latest_tokens / seconds if seconds else 0.0,
                remaining=pace.step_seconds * (self.total_steps - self.steps_done),
            )
        )
        guard.check(self.steps_done, report, places)
        return report

    def _save(self) -> None:
        state = RunState(
            steps_done=self.steps_done,
            steps_per_epoch=self.rows.steps_per_epoch,
            parameters=self.trainer.parameters(),
            trainer_state=self.trainer.state(),
            shares=self.trainer.shares() if isinstance(self.trainer, SupportsShares) else {},
        )
        for saved in self.keeper.save(state):
            self.journal.record(saved)

    def _evaluate_if_due(self, best: tuple[int, float] | None) -> tuple[int, float] | None:
        policy = self.evaluation
        if policy is None or not policy.due(self.steps_done, self.rows.steps_per_epoch):
            return best
        begun = self.clock()
        scores = policy.evaluate()
        done = EvaluationDone(step=self.steps_done, scores=scores, seconds=self.clock() - begun)
        value = scores[policy.score]
        if policy.better(value, best and best[1]):
            if self.keeper.saved_step < self.steps_done:
                self._save()
            self.keeper.mark_best(self.steps_done, value)
            best, done = (self.steps_done, value), evolve(done, best=True)
        self.journal.record(done)
        return best


@define
class _Pace:
    """Means over the steps so far."""

    steps: int = 0
    latest_tokens: int = 0
    tokens: int = 0
    token_seconds: float = 0.0
    step_seconds: float = 0.0
    epoch_loss: float = 0.0
    epoch_steps: int = 0

    def add(self, seconds: float, tokens: int) -> None:
        self.steps += 1
        self.latest_tokens = tokens
        if self.steps == 2:  # the first step compiles and says nothing about the next ones
            self.step_seconds = seconds
        else:
            self.step_seconds += (seconds - self.step_seconds) * (1.0 if self.steps == 1 else 0.1)
        if self.steps > 1:
            self.tokens += tokens
            self.token_seconds += seconds

    def new_epoch(self) -> None:
        self.epoch_loss, self.epoch_steps = 0.0, 0

    def mean_loss(self, report: StepReport) -> float:
        self.epoch_loss += report.loss
        self.epoch_steps += 1
        return self.epoch_loss / self.epoch_steps

    @property
    def tokens_per_second(self) -> float | None:
        return self.tokens / self.token_seconds if self.token_seconds else None
