"""AdamW over a network's parameters as a cell of a compiled training step, and its state."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, nn, ops
from numpy.typing import NDArray

from glm3.adapters.mindspore.kernels.adamw import step_settings
from glm3.adapters.mindspore.kernels.base import Kernels, Tensor
from glm3.domain.training.options import TrainOptions, decays

__all__ = ["Optimizer", "float32_parameters"]


def float32_parameters(prefix: str, parameters: Sequence[Parameter]) -> ParameterTuple:
    """Return zeros of the parameters' shapes, called ``prefix`` and their names."""
    made = []
    for parameter in parameters:
        zeros = ms.Tensor.from_numpy(np.zeros(parameter.shape, np.float32))
        made.append(Parameter(zeros, name=prefix + parameter.name, requires_grad=False))
    return ParameterTuple(made)


class Optimizer(nn.Cell):
    """Unscale, test, clip and apply gradients; skip the update where any of them is not finite.

    Moments are float32 whatever the parameters are stored in, and so is the arithmetic: what is updated of a
    narrower parameter is a float32 copy. As a master copy it keeps what rounding takes from the parameter;
    where the options ask for none it is rounded as the parameter is.

    ``parameters`` is in the order in which gradients are expected: those that decay, then the others.
    """

    def __init__(self, parameters: Sequence[Parameter], kernels: Kernels, options: TrainOptions) -> None:
        super().__init__(auto_prefix=False)
        self.kernels = kernels
        self.options = options
        decayed = [p for p in parameters if decays(p.name, p.shape)]
        plain = [p for p in parameters if not decays(p.name, p.shape)]
        self.parameters = ParameterTuple([*decayed, *plain])
        self.decayed = len(decayed)
        self.means = float32_parameters("adam_m.", self.parameters)
        self.squares = float32_parameters("adam_v.", self.parameters)
        self.narrow = ParameterTuple([p for p in self.parameters if p.dtype != ms.float32])
        self.copies = float32_parameters("master.", self.narrow)
        self.rounded = not options.master_weights
        copies = {p.name: copy for p, copy in zip(self.narrow, self.copies, strict=True)}
        self.updated = ParameterTuple([copies.get(p.name, p) for p in self.parameters])
        self.max_grad_norm = options.max_grad_norm
        self.take_parameters()

    @property
    def state(self) -> tuple[Parameter, ...]:
        """Everything a later step depends on besides the parameters and the count of steps."""
        return (*self.means, *self.squares, *(() if self.rounded else self.copies))

    def take_parameters(self) -> None:
        """Make the float32 copies equal to the parameters."""
        for parameter, copy in zip(self.narrow, self.copies, strict=True):
            copy.set_data(ops.cast(parameter, ms.float32))

    def give_parameters(self) -> None:
        """Round the float32 copies into the parameters; eagerly, as graphs on the CPU cannot set bfloat16."""
        for parameter, copy in zip(self.narrow, self.copies, strict=True):
            parameter.set_data(ops.cast(copy, parameter.dtype))

    def settings(self, learning_rate: float, step: int, inverse_scale: float) -> Tensor:
        """Return what :meth:`construct` needs to know of step number ``step``, ``(2, 10)`` float32.

        The rows are for parameters that decay and for the others; the last column undoes the loss scale.
        """
        options = self.options
        rows: NDArray[np.float32] = np.array(
            [
                [
                    *step_settings(
                        learning_rate,
                        (options.beta1, options.beta2),
                        options.eps,
                        weight_decay,
                        step if options.optimizer.bias_correction else None,
                    ),
                    inverse_scale,
                ]
                for weight_decay in (options.weight_decay, 0.0)
            ],
            np.float32,
        )
        return ms.Tensor.from_numpy(rows)

    def construct(self, gradients: Sequence[Tensor], settings: Tensor) -> tuple[Tensor, Tensor]:
        """Update everything; return the norm of the unscaled gradients, and 1 if all were finite, else 0."""
        squares = ops.zeros((), ms.float32)
        for gradient in gradients:
            squares = squares + self.kernels.sum_of_squares(gradient)
        inverse_scale = settings[0, 9]
        norm = ops.sqrt(squares) * inverse_scale
        finite = ops.cast(ops.isfinite(squares), ms.float32)
        factor = inverse_scale
        if self.max_grad_norm is not None:
            factor = inverse_scale * ops.minimum(self.max_grad_norm / (norm + 1e-6), ops.ones_like(norm))
        found = ops.stack((factor, finite))
        first = self._apply(0, self.decayed, gradients, ops.concat((settings[0, :9], found)))
        second = self._apply(
            self.decayed, len(self.parameters), gradients, ops.concat((settings[1, :9], found))
        )
        done = first + second
        if self.rounded:
            for i in range(len(self.copies)):
                copy = ops.depend(self.copies[i], done)
                narrow = ops.cast(copy, self.narrow[i].dtype)
                done = ops.depend(done, ops.assign(self.copies[i], ops.cast(narrow, ms.float32)))
        return ops.depend(norm, done), finite

    def _apply(self, start: int, stop: int, gradients: Sequence[Tensor], settings: Tensor) -> Tensor:
        return self.kernels.adamw(
            self.updated[start:stop],
            self.means[start:stop],
            self.squares[start:stop],
            gradients[start:stop],
            settings,
        )
