"""A plain training loop over the trainer port: warm-up, then half a cosine, batches of like length."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from math import cos, pi

import numpy as np
from attrs import frozen
from tools.tiny_model.encoding import EncodedRow, batches

from glm3.domain.ports.training import MicroBatch, Trainer
from glm3.domain.training.options import TrainOptions

__all__ = ["OPTIONS", "TrainingPlan", "train"]

OPTIONS = TrainOptions(beta1=0.9, beta2=0.98, weight_decay=0.1, max_grad_norm=1.0)


@frozen(kw_only=True)
class TrainingPlan:
    """How long and how fast; ``batch_tokens`` counts padding too, ``floor`` is the last share of the rate."""

    steps: int
    batch_tokens: int = 1024
    learning_rate: float = 3e-3
    warmup: int = 100
    floor: float = 0.02
    seed: int = 20240301

    def rate(self, step: int) -> float:
        """Return the learning rate of the 0-based ``step``."""
        fall = (1 + cos(pi * step / self.steps)) / 2
        return self.learning_rate * min((step + 1) / self.warmup, self.floor + (1 - self.floor) * fall)


def train(
    trainer: Trainer, rows: Sequence[EncodedRow], plan: TrainingPlan, report: Callable[[str], None]
) -> float:
    """Train and return the mean loss of the last hundredth of the steps."""
    losses: list[float] = []
    tokens, started = 0, time.monotonic()
    for step, batch in enumerate(_endless(rows, plan)):
        if step == plan.steps:
            break
        done = trainer.step([batch], plan.rate(step))
        losses.append(done.loss)
        tokens += batch.input_ids.size
        if (step + 1) % 100 == 0:
            speed = tokens / (time.monotonic() - started)
            report(
                f"step {step + 1:5d} of {plan.steps}  loss {np.mean(losses[-100:]):.4f}"
                f"  norm {done.grad_norm:.2f}  rate {done.learning_rate:.5f}  {speed:.0f} tokens/s"
            )
    return float(np.mean(losses[-max(1, plan.steps // 100) :]))


def _endless(rows: Sequence[EncodedRow], plan: TrainingPlan) -> Iterator[MicroBatch]:
    epoch = 0
    while True:
        yield from batches(rows, plan.batch_tokens, plan.seed + epoch)
        epoch += 1
