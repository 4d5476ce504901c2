"""How far training lies from the official torch code.

That code knows AdamW alone. Of MindFormers' optimizer the first update is worked out here from its gradients.

``PYTHONPATH=tests:typings python -m support.golden_training`` prints the table of docs/finetune.md.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache

import numpy as np
from attrs import evolve, frozen

from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.domain.ports.training import MicroBatch
from glm3.domain.tensors import Array
from glm3.domain.training.options import OptimizerKind, TrainOptions, decays
from support.models import (
    GOLDEN_MODELS,
    KERNEL_SETS,
    golden_arrays,
    golden_config,
    golden_parameters,
    mindspore_model,
)

LEARNING_RATE = 1e-3
OPTIONS = TrainOptions(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, max_grad_norm=1.0)


@frozen
class Training:
    """What steps gave: losses and norms of each, the first gradients, the last weights."""

    losses: list[float]
    grad_norms: list[float]
    gradients: Mapping[str, Array]
    weights: Mapping[str, Array]


@frozen
class Errors:
    """The worst differences: relative; relative; of each tensor's largest gradient; absolute.

    Weights count where the first gradient is a thousandth of its tensor's largest: below that AdamW amplifies
    rounding, and torch differs from itself in float64.
    """

    loss: float
    grad_norm: float
    gradient: float
    weight: float

    @classmethod
    def between(cls, found: Training, expected: Training) -> Errors:
        return cls(
            loss=_relative(found.losses, expected.losses),
            grad_norm=_relative(found.grad_norms, expected.grad_norms),
            gradient=max(
                float(np.abs(found.gradients[name] - wanted).max() / np.abs(wanted).max())
                for name, wanted in expected.gradients.items()
            ),
            weight=max(
                float(np.abs(found.weights[name] - wanted)[_clear(expected.gradients[name])].max())
                for name, wanted in expected.weights.items()
            ),
        )


def golden_batch(golden: Mapping[str, Array]) -> MicroBatch:
    """The reference shifts labels inside; here a target stands at the position before its token."""
    labels = golden["labels"]
    targets = np.full_like(labels, -100)
    targets[:, :-1] = labels[:, 1:]
    return MicroBatch(golden["input_ids"].astype(np.int32), targets.astype(np.int32))


def golden_training(name: str, kind: OptimizerKind = OptimizerKind.ADAMW) -> Training:
    """Return what the official code did in three steps, or would do in one without correction of the bias."""
    golden = golden_arrays(name)
    losses, norms = golden["train_losses"].tolist(), golden["train_grad_norms"].tolist()
    gradients = _named(golden, "grad:")
    if kind is OptimizerKind.ADAMW:
        return Training(losses, norms, gradients, _named(golden, "after3:"))
    weights = {}
    for parameter, gradient in gradients.items():
        before = golden_parameters(name)[parameter].astype(np.float64)
        scaled = _clip(norms[0]) * gradient.astype(np.float64)
        mean, root = (1 - OPTIONS.beta1) * scaled, np.sqrt((1 - OPTIONS.beta2) * scaled**2)
        update = mean / (root + OPTIONS.eps)
        if decays(parameter, before.shape):
            update += OPTIONS.weight_decay * before
        weights[parameter] = before - LEARNING_RATE * update
    return Training(losses[:1], norms[:1], gradients, weights)


@cache
def training_of(name: str, kernels: str, kind: OptimizerKind = OptimizerKind.ADAMW) -> Training:
    """Train a golden model over a kernel set for as many steps as :func:`golden_training` tells of."""
    batch, options = golden_batch(golden_arrays(name)), evolve(OPTIONS, optimizer=kind)
    model = mindspore_model(golden_config(name), golden_parameters(name), kernels=kernels)
    trainer = model.trainer(options, SingleProcessCommunicator())
    reports = [trainer.step([batch], LEARNING_RATE)]
    moments = trainer.state()  # after one step a tenth of the clipped gradients
    part = (1 - options.beta1) * _clip(reports[0].grad_norm)
    gradients = {key: moments[f"adam_m.{key}"] / part for key in trainer.parameters()}
    if kind is OptimizerKind.ADAMW:
        reports += [trainer.step([batch], LEARNING_RATE) for _ in range(2)]
    return Training(
        losses=[report.loss for report in reports],
        grad_norms=[report.grad_norm for report in reports],
        gradients=gradients,
        weights={key: np.array(array) for key, array in trainer.parameters().items()},
    )


def _clip(norm: float) -> float:
    return min(1.0, 1.0 / (norm + 1e-6))  # OPTIONS.max_grad_norm is 1


def _named(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _relative(found: list[float], expected: list[float]) -> float:
    return max(abs(one - other) / abs(other) for one, other in zip(found, expected, strict=True))


def _clear(gradient: Array) -> Array:
    size = np.abs(gradient)
    return np.asarray(size > size.max() / 1000)


def table() -> str:
    """Return the worst differences as lines of a Markdown table."""
    lines = ["| model | optimizer | kernels | loss | gradient norm | first gradients | weights |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name in GOLDEN_MODELS:
        for kind in OptimizerKind:
            expected = golden_training(name, kind)
            for kernels in KERNEL_SETS:
                found = Errors.between(training_of(name, kernels, kind), expected)
                numbers = (found.loss, found.grad_norm, found.gradient, found.weight)
                shown = " | ".join(f"{number:.1e}" for number in numbers)
                lines.append(f"| `{name}` | `{kind.value}` | {kernels} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
