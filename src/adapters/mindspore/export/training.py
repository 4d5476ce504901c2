"""The training step as one graph whose optimizer states take no memory until they are used."""

from __future__ import annotations

import mindspore as ms
from mindspore import ParameterTuple, nn, ops
from mindspore.nn.wrap.cell_wrapper import _VirtualDatasetCell

from glm3.adapters.mindspore.export.parallel import ParallelPlan
from glm3.adapters.mindspore.kernels.base import Kernels, Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork

__all__ = ["LossGraph", "PipelineGraph", "StagedLossGraph", "TrainingGraph"]


class LossGraph(nn.Cell):
    """The mean loss of a batch."""

    def __init__(self, network: ChatGLMNetwork) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.kernels = network.kernels

    def construct(self, input_ids: Tensor, targets: Tensor) -> Tensor:
        """Return a scalar for ``input_ids`` and ``targets`` ``(batch, seq)``, int32."""
        return self.kernels.cross_entropy(self.network(input_ids), targets.reshape(-1))


class _Embedding(nn.Cell):
    """What comes before the first block. It is a cell so as to have a stage."""

    def __init__(self, network: ChatGLMNetwork) -> None:
        super().__init__(auto_prefix=False)
        self.kernels = network.kernels
        self.table = network.word_embeddings

    def construct(self, input_ids: Tensor) -> Tensor:
        return self.kernels.embedding(input_ids.reshape(-1), self.table)


class _Head(nn.Cell):
    """What follows the last block: final norm, output layer and loss."""

    def __init__(self, network: ChatGLMNetwork, last_stage: int) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.kernels = network.kernels
        self.pipeline_stage = last_stage

    def construct(self, x: Tensor, targets: Tensor) -> Tensor:
        return self.kernels.cross_entropy(self.network.output(x), targets.reshape(-1))


class StagedLossGraph(nn.Cell):
    """The mean loss of a micro-batch by cells of which each has its stage."""

    def __init__(self, network: ChatGLMNetwork, plan: ParallelPlan) -> None:
        super().__init__(auto_prefix=False)
        # MindSpore names operations after the cell that it finds last: the blocks must be found as blocks.
        self.head = _Head(network, plan.pipeline_stage - 1)
        self.embedding = _Embedding(network)
        self.embedding.pipeline_stage = 0
        self.network = network

    def construct(self, input_ids: Tensor, targets: Tensor) -> Tensor:
        """Return a scalar for ``input_ids`` and ``targets`` ``(batch, seq)``, int32."""
        batch, seq = input_ids.shape
        return self.head(self.network.blocks(self.embedding(input_ids), batch, seq), targets)


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
        # MindSpore takes what belongs to other stages out of a tuple; a chain of sums it breaks.
        total = ops.addn([self.kernels.sum_of_squares(gradient) for gradient in gradients])
        if self.sum is not None:
            total = self.sum(total)
        finite = ops.expand_dims(ops.cast(ops.isfinite(total), ms.float32), 0)
        return self.kernels.adamw(
            self.parameters, self.means, self.squares, gradients, ops.concat((settings, finite))
        )


class PipelineGraph(TrainingGraph):
    """A training step whose batch goes through the plan's stages in micro-batches.

    MindSpore adds the micro-batches' gradients to parameters called ``accu_grads``, by that name, and keeps
    on each rank what belongs to its stage. The loss is the sum over micro-batches: ``factor`` is to contain
    one over their number.
    """

    def __init__(self, network: ChatGLMNetwork, plan: ParallelPlan) -> None:
        piped = nn.PipelineCell(StagedLossGraph(network, plan), plan.micro_batches)
        super().__init__(_VirtualDatasetCell(piped), network.kernels, plan.num_ranks)
        self.sums = self.parameters.clone("accu_grads", init="zeros")
        self.shared = plan.optimizer_shard

    def construct(self, input_ids: Tensor, targets: Tensor, factor: Tensor, settings: Tensor) -> Tensor:
        """Do what the whole step does; the loss is the last stage's."""
        loss = self.loss(input_ids, targets)
        gradients = self.differentiate(self.loss, self.parameters)(input_ids, targets, factor)
        sums = ops.depend(self.sums, gradients)
        # Shared out, what is returned is this rank's part of the sums; else the sums themselves are complete.
        done = self._update(gradients if self.shared else sums, settings)
        cleared: tuple[Tensor, ...] = ()
        for i in range(len(self.sums)):
            cleared += (ops.assign(self.sums[i], ops.zeros_like(ops.depend(sums[i], done))),)
        return ops.depend(loss, cleared)
