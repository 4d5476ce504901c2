"""The training step as cells that compile to whole graphs."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, nn, ops
from numpy.typing import NDArray

from glm3.adapters.mindspore.kernels.base import Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.adapters.mindspore.training.optimizer import Optimizer, float32_parameters

__all__ = ["GradientStep", "SplitStep", "WholeStep"]


class _ScaledLoss(nn.Cell):
    """The mean loss of a micro-batch times ``factor``, which is differentiated, and without it."""

    def __init__(self, network: ChatGLMNetwork) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.kernels = network.kernels

    def construct(self, input_ids: Tensor, targets: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        loss = self.kernels.cross_entropy(self.network(input_ids), targets.reshape(-1))
        return loss * factor, loss


class _Gradients(nn.Cell):
    """The loss of a micro-batch and the float32 gradients of ``factor`` times it."""

    def __init__(self, network: ChatGLMNetwork, parameters: Sequence[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.differentiate = ops.value_and_grad(
            _ScaledLoss(network), None, ParameterTuple(parameters), has_aux=True
        )

    def construct(
        self, input_ids: Tensor, targets: Tensor, factor: Tensor
    ) -> tuple[Tensor, Sequence[Tensor]]:
        (_, loss), found = self.differentiate(input_ids, targets, factor)
        return loss, [ops.cast(gradient, ms.float32) for gradient in found]


class WholeStep(nn.Cell):
    """A step of one micro-batch on one rank: forward, backward and update in one graph."""

    def __init__(self, network: ChatGLMNetwork, optimizer: Optimizer) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = _Gradients(network, optimizer.parameters)
        self.optimizer = optimizer

    def construct(self, input_ids: Tensor, targets: Tensor, factor: Tensor, settings: Tensor) -> Tensor:
        """Return the loss, the norm of the gradients, and 1 if they were finite."""
        loss, gradients = self.gradients(input_ids, targets, factor)
        norm, finite = self.optimizer(gradients, settings)
        return ops.stack((loss, norm, finite))


class GradientStep:
    """A step of one micro-batch in two graphs, between which the ranks of a job can wait for each other."""

    def __init__(self, network: ChatGLMNetwork, optimizer: Optimizer) -> None:
        self.gradients = _Gradients(network, optimizer.parameters)
        self.update = _Apply(optimizer)


class SplitStep:
    """A step in parts: sum the gradients of micro-batches, let the host see the sums, update from them."""

    def __init__(self, network: ChatGLMNetwork, optimizer: Optimizer) -> None:
        self.sums = float32_parameters("gradient_sum.", optimizer.parameters)
        self.accumulate = _Accumulate(network, optimizer.parameters, self.sums)
        self.update = _Update(self.sums, optimizer)

    def clear(self) -> None:
        """Begin a step."""
        for total in self.sums:
            total.set_data(ops.zeros_like(total))

    def flat(self) -> NDArray[np.float32]:
        """Return all sums one after another."""
        return np.concatenate([total.asnumpy().reshape(-1) for total in self.sums])

    def load(self, flat: NDArray[np.float32]) -> None:
        """Replace all sums by what :meth:`flat` returned and ranks have added up."""
        offset = 0
        for total in self.sums:
            part = flat[offset : offset + total.size].reshape(total.shape)
            total.set_data(ms.Tensor(part))
            offset += total.size


class _Accumulate(nn.Cell):
    def __init__(
        self, network: ChatGLMNetwork, parameters: Sequence[Parameter], sums: Sequence[Parameter]
    ) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = _Gradients(network, parameters)
        self.sums = ParameterTuple(sums)

    def construct(self, input_ids: Tensor, targets: Tensor, factor: Tensor) -> Tensor:
        """Add a micro-batch's gradients to the sums; return its loss."""
        loss, gradients = self.gradients(input_ids, targets, factor)
        for i in range(len(self.sums)):
            loss = ops.depend(loss, ops.assign_add(self.sums[i], gradients[i]))
        return loss


class _Apply(nn.Cell):
    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer

    def construct(self, settings: Tensor, *gradients: Tensor) -> Tensor:
        """Return the norm of the gradients, and 1 if they were finite.

        A list of them would be a constant, and compiled anew with each step's numbers.
        """
        return ops.stack(self.optimizer(gradients, settings))


class _Update(nn.Cell):
    def __init__(self, sums: Sequence[Parameter], optimizer: Optimizer) -> None:
        super().__init__(auto_prefix=False)
        self.sums = ParameterTuple(sums)
        self.optimizer = optimizer

    def construct(self, settings: Tensor) -> Tensor:
        """Return the norm of the gradients, and 1 if they were finite."""
        return ops.stack(self.optimizer(self.sums, settings))
