"""Port: a model that learns, one optimizer step at a time; what to learn and when to save lies above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.domain.ports.communicator import Communicator
from glm3.domain.tensors import Array
from glm3.domain.training.lora import LoRAConfig
from glm3.domain.training.options import TrainOptions
from glm3.domain.training.prefix import PrefixConfig

__all__ = [
    "MicroBatch",
    "StepReport",
    "SupportsLoRA",
    "SupportsPrefix",
    "SupportsShares",
    "SupportsTraining",
    "Trainer",
]


@frozen(eq=False)
class MicroBatch:
    """Sequences computed in one pass.

    ``input_ids`` and ``targets`` are ``(batch, seq)`` int32; ``targets[b, i]`` is the id that should follow
    position ``i``, or -100 where nothing is learned.
    """

    input_ids: NDArray[np.int32]
    targets: NDArray[np.int32]

    @property
    def supervised_tokens(self) -> int:
        return int((self.targets != -100).sum())


@frozen
class StepReport:
    """What one optimizer step did.

    ``loss`` is the mean over all supervised tokens of the global batch; ``grad_norm`` is the global L2 norm
    before clipping; ``loss_scale`` is what the step was computed with. With ``overflow`` a gradient was not
    finite: the step was skipped and nothing but the next step's loss scale has changed.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    overflow: bool
    loss_scale: float
    supervised_tokens: int


class Trainer(Protocol):
    """An optimizer over a model's trainable parameters, and its state."""

    def step(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> StepReport:
        """Accumulate the gradients of this rank's micro-batches, combine them over ranks, and update once.

        Raises:
            InvalidInputError: no token of the global batch is supervised.
        """
        ...

    def parameters(self) -> Mapping[str, Array]:
        """Return the trainable parameters by name, carried in the precision they are kept in.

        A parameter is copied when it is looked up: keep what must outlive the next step.
        """
        ...

    def state(self) -> Mapping[str, Array]:
        """Return everything besides the parameters that a later step depends on: moments, counters, scale.

        Each is copied when it is looked up. Moments are called ``adam_m.NAME`` and ``adam_v.NAME``, float32
        master copies ``master.NAME``; scalars are ``step``, ``loss_scale`` and ``good_steps``.
        """
        ...

    def restore(self, parameters: Mapping[str, Array], state: Mapping[str, Array]) -> None:
        """Continue from what :meth:`parameters` and :meth:`state` gave, bit for bit.

        Raises:
            ParameterMismatchError: names or shapes differ.
        """
        ...


@runtime_checkable
class SupportsShares(Protocol):
    """A trainer that may share the optimizer's work and states out among ranks.

    Its state then holds this rank's rows only. It restores complete arrays too, and parameters of which each
    rank has its own rows. Where ranks share the network itself its parameters are this rank's parts, and like
    its state they are looked up by every rank, in the same order.
    """

    def shares(self) -> Mapping[str, slice]:
        """Return this rank's rows of every parameter that is shared out, by name."""
        ...

    def complete_parameters(self) -> Mapping[str, Array]:
        """Return the parameters, complete where each rank has parts of them otherwise.

        Every rank must look up each of them, in this order: they are made by all.
        """
        ...


@runtime_checkable
class SupportsLoRA(Protocol):
    """A model that can be adapted beside its weights, which stay as they are.

    While it is adapted only the adapter is trained; a trainer begun before does not know of it.
    """

    def add_lora(self, config: LoRAConfig, seed: int = 0) -> None:
        """Add a fresh adapter, which does not change the answers yet.

        Raises:
            InvalidInputError: the model has one.
        """
        ...

    def adapter_parameters(self) -> Mapping[str, Array]:
        """Return copies of the adapter's parameters by name, float32; none without an adapter."""
        ...

    def set_adapter_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Replace all of the adapter's parameters.

        Raises:
            ParameterMismatchError: names or shapes differ.
        """
        ...

    def merge_lora(self) -> None:
        """Fold the adapter into the weights and take it away: the answers stay, within rounding.

        Raises:
            InvalidInputError: the model has none.
        """
        ...


@runtime_checkable
class SupportsPrefix(Protocol):
    """A model that can be given a learned prefix beside its weights, which stay as they are.

    While it has one only the prefix is trained; caches and trainers begun before do not know of it.
    """

    def add_prefix(self, config: PrefixConfig, seed: int = 0) -> None:
        """Add a random prefix.

        Raises:
            InvalidInputError: the model has a prefix or another adapter.
        """
        ...

    def adapter_parameters(self) -> Mapping[str, Array]:
        """Return copies of the prefix's parameters by name, float32; none without one."""
        ...

    def set_adapter_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Replace all of the prefix's parameters.

        Raises:
            ParameterMismatchError: names or shapes differ.
        """
        ...


@runtime_checkable
class SupportsTraining(Protocol):
    """A model whose weights can be trained in place."""

    def trainer(self, options: TrainOptions, communicator: Communicator) -> Trainer:
        """Begin training; what is learned shows in the model's answers at once."""
        ...
