"""Finetuning from Python: a whole run from a YAML file, or step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm3.application.finetune import FinetuneReport, FinetuneRequest
from glm3.application.journals import Journals
from glm3.application.merge_adapter import MergeAdapterRequest
from glm3.application.merge_adapter import merge_adapter as carry_out_merge
from glm3.domain.errors import BackendError, InvalidInputError, UsageError
from glm3.domain.ports.run_journal import RunJournal
from glm3.domain.ports.training import MicroBatch, StepReport, SupportsTraining
from glm3.domain.training.encoding import IGNORE, PairLayout
from glm3.domain.training.options import OptimizerKind, TrainOptions
from glm3.entrypoints.container import build_container
from glm3.entrypoints.python.model import ChatGLM2ForConditionalGeneration

__all__ = ["TrainSession", "finetune", "merge_adapter"]


def finetune(
    config: str | Path,
    *overrides: str,
    layout: str = "bare",
    strict: bool = False,
    display: RunJournal | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> FinetuneReport:
    """Train as a YAML file says, with ``overrides`` of the form ``runner_config.epochs=2``.

    Args:
        config: a file in the layout of ``configs/glm3``.
        overrides: replace single keys.
        layout: rows of prompt and answer ``bare``, as in the model card, or as a ``chat``.
        strict: refuse a data set with a row that would be skipped.
        display: is told what happens; by default nobody is.
        stop: asked after every step; true ends the run, saved.

    Raises:
        ConfigError: the file or an override is wrong, all faults together.
        TrainingError: the loss is no number, or the loss scale is stuck.
        Glm3Error: data, weights or memory do not fit; all that is checked before the first step.
    """
    container = build_container()
    run = container.run_configs().read(Path(config), overrides)
    service = container.training().with_layout(PairLayout(layout)).finetuning()
    request = FinetuneRequest(config=run, strict=strict, stop=stop)
    return service.run(request, display or Journals(()))


def merge_adapter(
    adapter: str | Path,
    target: str | Path,
    to: str = "hf",
    *,
    base: str | None = None,
    lora_alpha: float | None = None,
    verify: bool = False,
    overwrite: bool = False,
) -> Path:
    """Fold a LoRA adapter into the weights it was trained on, and return what was written.

    ``lora_alpha`` is how strong an adapter in a ``.ckpt`` is, where nothing beside it says so.

    Raises:
        CheckpointError: the adapter is damaged, or was trained on other weights.
        UsageError: the target does not suit the format ``to``, or exists.
    """
    container = build_container()
    request = MergeAdapterRequest(
        adapter=Path(adapter),
        target=Path(target),
        format=to,
        base=base,
        alpha=lora_alpha,
        verify=verify,
        overwrite=overwrite,
    )
    return carry_out_merge(request, container.sources(), container.checkpoint_stores()).target


class TrainSession:
    """Train a loaded model step by step; what it learns shows in its answers at once.

    Args:
        model: from :class:`AutoModel`.
        optimizer: ``adamw``, or ``fp32_state_adam_weight_decay``, MindFormers', without bias correction.
        options: further fields of :class:`glm3.domain.training.options.TrainOptions`, for example
            ``loss_scale``.

    Raises:
        BackendError: the model's backend cannot train.
        InvalidInputError: a value is out of range.
    """

    def __init__(
        self,
        model: ChatGLM2ForConditionalGeneration,
        *,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        max_grad_norm: float | None = 1.0,
        optimizer: str = "adamw",
        **options: Any,
    ) -> None:
        if not isinstance(model.port, SupportsTraining):
            raise BackendError("this backend cannot train", found=type(model.port).__name__)
        if optimizer not in list(OptimizerKind):
            raise UsageError("no such optimizer", expected=", ".join(OptimizerKind), found=repr(optimizer))
        self.learning_rate = learning_rate
        self._model = model
        self._trainer = model.port.trainer(
            TrainOptions(
                optimizer=OptimizerKind(optimizer),
                beta1=betas[0],
                beta2=betas[1],
                eps=eps,
                weight_decay=weight_decay,
                max_grad_norm=max_grad_norm,
                **options,
            ),
            build_container().communicator(),
        )

    def step(self, input_ids: Any, labels: Any) -> StepReport:
        """Make one optimizer step on a batch ``(batch, seq)``.

        ``labels`` sit at the positions of their own ids and are shifted here: ``labels[b, i]`` is what
        should follow position ``i - 1``; -100 is ignored.

        Raises:
            InvalidInputError: the shapes differ, or nothing is to be learned.
        """
        ids, wanted = (np.atleast_2d(np.asarray(values)).astype(np.int32) for values in (input_ids, labels))
        if ids.ndim != 2 or ids.shape != wanted.shape:
            raise InvalidInputError(
                "labels do not fit the ids", field="labels", expected=ids.shape, found=wanted.shape
            )
        targets = np.full_like(wanted, IGNORE)
        targets[:, :-1] = wanted[:, 1:]
        return self._trainer.step([MicroBatch(ids, targets)], self.learning_rate)

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return a copy of every parameter by Hugging Face name, as float32."""
        return self._model.parameters()
