"""The training step as one graph whose optimizer states take no memory until they are used."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, nn, ops
from mindspore.common.initializer import initializer

from glm3.adapters.mindspore.kernels.base import Kernels, Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork

__all__ = ["LossGraph", "TrainingGraph"]


class LossGraph(nn.Cell):
    """The mean loss of a batch times ``factor``."""

    def __init__(self, network: ChatGLMNetwork) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.kernels = network.kernels

    def construct(self, input_ids: Tensor, targets: Tensor, factor: Tensor) -> Tensor:
        """Return a scalar for ``input_ids`` and ``targets`` ``(batch, seq)``, int32."""
        return self.kernels.cross_entropy(self.network(input_ids), targets.reshape(-1)) * factor


class TrainingGraph(nn.Cell):
    """Forward, backward, test for overflow and AdamW of every trainable parameter."""

    def __init__(self, loss: nn.Cell, kernels: Kernels) -> None:
        super().__init__(auto_prefix=False)
        self.kernels = kernels
        self.parameters = ParameterTuple(loss.trainable_params())
        self.means = _states("adam_m.", self.parameters)
        self.squares = _states("adam_v.", self.parameters)
        self.differentiate = ops.value_and_grad(loss, None, self.parameters)

    def construct(self, input_ids: Tensor, targets: Tensor, factor: Tensor, settings: Tensor) -> Tensor:
        """Return the loss; ``settings (10,)`` are those of :meth:`Kernels.adamw` but the last."""
        loss, found = self.differentiate(input_ids, targets, factor)
        gradients = [ops.cast(gradient, ms.float32) for gradient in found]
        total = ops.zeros((), ms.float32)
        for gradient in gradients:
            total = total + self.kernels.sum_of_squares(gradient)
        finite = ops.cast(ops.isfinite(total), ms.float32).reshape(1)
        done = self.kernels.adamw(
            self.parameters, self.means, self.squares, gradients, ops.concat((settings, finite))
        )
        return ops.depend(loss, done)


def _states(prefix: str, parameters: Sequence[Parameter]) -> ParameterTuple:
    return ParameterTuple(
        [
            Parameter(initializer("zeros", p.shape, ms.float32), name=prefix + p.name, requires_grad=False)
            for p in parameters
        ]
    )
