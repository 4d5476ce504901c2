"""AdamW of plain MindSpore operators, and the settings that every kernel set's AdamW reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import ops

__all__ = ["StockAdamW", "step_settings"]

Tensor = Any


def step_settings(
    learning_rate: float, betas: tuple[float, float], epsilon: float, weight_decay: float, step: int | None
) -> list[float]:
    """Return the nine settings known before the gradients are, in the order that kernels read them.

    They are learning rate, beta1, beta2, epsilon, weight decay, 1 - beta1, 1 - beta2, 1 / (1 - beta1^step)
    and 1 / (1 - beta2^step). ``step`` counts from 1; None leaves the moments uncorrected. Two follow inside
    the compiled step: the gradient's factor, and whether to apply it at all.
    """
    beta1, beta2 = betas
    corrections = (1.0, 1.0) if step is None else (1 / (1 - beta1**step), 1 / (1 - beta2**step))
    return [learning_rate, beta1, beta2, epsilon, weight_decay, 1 - beta1, 1 - beta2, *corrections]


@ms.jit_class
class StockAdamW:
    """Update parameters and moments in place, as :meth:`Kernels.adamw` says."""

    def __init__(self) -> None:
        self._adam = ops.Adam()

    def __call__(
        self,
        parameters: Sequence[Tensor],
        means: Sequence[Tensor],
        squares: Sequence[Tensor],
        gradients: Sequence[Tensor],
        settings: Tensor,
    ) -> Tensor:
        # ops.Adam takes epsilon relative to the uncorrected root; both scaled alike give the same quotient.
        root = ops.sqrt(settings[8])
        step, epsilon = settings[0] * settings[7] / root, settings[3] / root
        none = ops.zeros_like(step)  # of the correction: it is in the step
        beta1, beta2 = settings[1], settings[2]
        keep = 1.0 - settings[0] * settings[4]
        if settings[10] != 0.0:
            for i in range(len(parameters)):
                kept = ops.assign(parameters[i], parameters[i] * keep)
                gradient = ops.depend(gradients[i] * settings[9], kept)
                self._adam(
                    parameters[i], means[i], squares[i], none, none, step, beta1, beta2, epsilon, gradient
                )
        return settings[10]
