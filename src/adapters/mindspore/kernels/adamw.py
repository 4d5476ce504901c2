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
        self.adam = ops.Adam()

    def __call__(
        self,
        parameters: Sequence[Tensor],
        means: Sequence[Tensor],
        squares: Sequence[Tensor],
        gradients: Sequence[Tensor],
        settings: Tensor,
    ) -> Tensor:
        if settings[10] != 0.0:
            for i in range(len(parameters)):
                gradient = gradients[i] * settings[9]
                if parameters[i].dtype == ms.float32:
                    self._update(parameters[i], means[i], squares[i], gradient, settings)
                else:
                    self._update_narrow(parameters[i], means[i], squares[i], gradient, settings)
        return settings[10]

    def _update(
        self, parameter: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, settings: Tensor
    ) -> None:
        # ops.Adam takes epsilon relative to the uncorrected root; both scaled alike give the same quotient.
        root = ops.sqrt(settings[8])
        step = settings[0] * settings[7] / root
        uncorrected = ops.zeros_like(step)
        kept = ops.assign(parameter, parameter * (1.0 - settings[0] * settings[4]))
        gradient = ops.depend(gradient, kept)
        self.adam(
            parameter,
            mean,
            square,
            uncorrected,
            uncorrected,
            step,
            settings[1],
            settings[2],
            settings[3] / root,
            gradient,
        )

    def _update_narrow(
        self, parameter: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, settings: Tensor
    ) -> None:
        """Compute in float32 and round once; ``ops.Adam`` would compute in the parameter's own precision."""
        new_mean = mean * settings[1] + gradient * settings[5]
        new_square = square * settings[2] + ops.square(gradient) * settings[6]
        change = new_mean * settings[7] / (ops.sqrt(new_square * settings[8]) + settings[3])
        kept = ops.cast(parameter, ms.float32) * (1.0 - settings[0] * settings[4])
        updated = ops.cast(kept - change * settings[0], parameter.dtype)
        ops.assign(mean, new_mean)
        ops.assign(square, new_square)
        ops.assign(parameter, updated)
