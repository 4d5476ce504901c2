"""The training step as one graph whose optimizer states take no memory until they are used."""

from __future__ import annotations

import mindspore as ms
from mindspore import ParameterTuple, nn, ops

from glm3.adapters.mindspore.kernels.base import Kernels, Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork

__all__ = ["LossGraph", "TrainingGraph"]


class LossGraph(nn.Cell):
    """The mean loss of a batch."""

    def __init__(self, network: ChatGLMNetwork) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.kernels = network.kernels

    def construct(self, input_ids: Tensor, targets: Tensor) -> Tensor:
        """Return a scalar for ``input_ids`` and ``targets`` ``(batch, seq)``, int32."""
        return self.kernels.cross_entropy(self.network(input_ids), targets.reshape(-1))


class TrainingGraph(nn.Cell):
    """Forward, backward, test for overflow and AdamW of every trainable parameter, all of float32.

    Where several ranks hold parts of the gradients, all of them skip what overflows on one.
    """

    def __init__(self, loss: nn.Cell, kernels: Kernels, num_ranks: int = 1) -> None:
        super().__init__(auto_prefix=False)
        self.loss = loss
        self.kernels = kernels
        self.sum = ops.AllReduce() if num_ranks > 1 else None
        self.parameters = ParameterTuple(loss.trainable_params())
        # Clones are cut as what they were cloned from; other parameters would stay whole on every rank.
        self.means = self.parameters.clone("adam_m", init="zeros")
        self.squares = self.parameters.clone("adam_v", init="zeros")
        self.differentiate = ops.GradOperation(get_by_list=True, sens_param=True)

    def construct(self, input_ids: Tensor, targets: Tensor, factor: Tensor, settings: Tensor) -> Tensor:
        """Return the loss; ``factor`` multiplies the gradients, a scalar.

        ``settings (10,)`` are those of :meth:`Kernels.adamw` but the last.
        """
        loss = self.loss(input_ids, targets)
        gradients = self.differentiate(self.loss, self.parameters)(input_ids, targets, factor)
        return ops.depend(loss, self._update(gradients, settings))

    def _update(self, found: tuple[Tensor, ...], settings: Tensor) -> Tensor:
        gradients = [ops.cast(gradient, ms.float32) for gradient in found]
        total = ops.zeros((), ms.float32)
        for gradient in gradients:
            total = total + self.kernels.sum_of_squares(gradient)
        if self.sum is not None:
            total = self.sum(total)
        finite = ops.expand_dims(ops.cast(ops.isfinite(total), ms.float32), 0)
        return self.kernels.adamw(
            self.parameters, self.means, self.squares, gradients, ops.concat((settings, finite))
        )
