"""The trainer port over the MindSpore network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import mindspore as ms
import numpy as np
from attrs import evolve
from mindspore import Parameter, nn

from glm3.adapters.mindspore.communicator import MindSporeCommunicator
from glm3.adapters.mindspore.kernels.base import Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.adapters.mindspore.runtime import graph_mode
from glm3.adapters.mindspore.tensors import dtype_of, to_carrier
from glm3.adapters.mindspore.training.dropout import DropoutKey
from glm3.adapters.mindspore.training.exchange import GradientExchange, Group, KeyValueExchange
from glm3.adapters.mindspore.training.optimizer import Optimizer
from glm3.adapters.mindspore.training.restoring import require_fit, set_parameter
from glm3.adapters.mindspore.training.shared_job import SharedJob, group_of
from glm3.adapters.mindspore.training.step import GradientStep, SplitStep, WholeStep
from glm3.domain.errors import BackendError, InvalidInputError
from glm3.domain.lazy_arrays import LazyArrays
from glm3.domain.model_inputs import check_targets
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.training import MicroBatch, StepReport
from glm3.domain.tensors import Array
from glm3.domain.training.loss_scale import DynamicLossScale
from glm3.domain.training.options import TrainOptions
from glm3.domain.training.shares import complete_rows, own_rows, parameter_of, require_plain, shared_rows

__all__ = ["MindSporeTrainer"]

_SCALARS = ("step", "loss_scale", "good_steps")


class MindSporeTrainer:
    """Train a network's parameters in place, with whole steps compiled as graphs.

    A step of one micro-batch on one rank is one graph. Otherwise one graph makes the gradients, or adds those
    of each micro-batch to sums, the ranks wait for each other and add up what they have, and a second graph
    updates; ranks of MindSpore's runtime may share that work out. Each new ``(batch, seq)`` compiles once:
    pad to one shape.

    ``dropout_key`` is the network's, if it has dropouts: masks follow from the seed, the number of the step,
    the rank and the micro-batch, and from nothing that would have to be saved.

    With ``shared`` the network is this rank's part of one, and steps add up inside the graph what its ranks
    compute. Parameters and states are then given as files hold them, and looking them up is an exchange: all
    ranks must do so, in one order.
    """

    def __init__(
        self,
        network: ChatGLMNetwork,
        options: TrainOptions,
        communicator: Communicator,
        dropout_key: DropoutKey | None = None,
        shared: SharedJob | None = None,
    ) -> None:
        self._network = network
        self._seed = options.seed
        self._dropout_key = dropout_key
        self._world, self._shared = communicator, shared
        self._config = network.config if shared is None else shared.shares.config
        self._communicator = communicator if shared is None else shared.shares.data
        self._scaled = options.loss_scale is not None
        self._scale = DynamicLossScale(
            options.loss_scale or 1.0, factor=options.scale_factor, window=options.scale_window
        )
        self._updates = 0
        self._parameters: dict[str, Parameter] = {p.name: p for p in network.trainable_params()}
        for parameter in self._parameters.values():
            # Updates are in place: the memory must not be a caller's array or a mapped file.
            set_parameter(parameter, to_carrier(parameter))
        if options.recompute:
            for layer in network.layers:
                layer.recompute()
        if shared is None:
            self._group, norm = group_of(communicator), None
            self._rows = _rows_of(self._parameters, options, communicator, self._group)
        else:
            self._group, norm, self._rows = shared.data, shared.norm(), shared.shares.rows
        self._optimizer = Optimizer(
            list(self._parameters.values()), network.kernels, options, self._group, self._rows, norm
        )
        self._whole = WholeStep(network, self._optimizer)
        self._parted = GradientStep(network, self._optimizer)
        self._exchanges: list[GradientExchange | KeyValueExchange] = []
        if shared is not None and (repeated := shared.key_value_exchange(self._optimizer.parameters)):
            self._exchanges.append(repeated)
        if self._group is not None:
            self._exchanges.append(GradientExchange(self._optimizer.parameters, self._rows, self._group))
        self._split: SplitStep | None = None  # made when it is needed: its sums take memory

    def step(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> StepReport:
        for batch in micro_batches:
            check_targets(self._config, batch.input_ids, batch.targets)
        supervised = int(self._all_ranks(sum(batch.supervised_tokens for batch in micro_batches)))
        if not supervised:
            raise InvalidInputError(
                "nothing to learn",
                field="targets",
                expected="a target other than -100 somewhere in the batch",
                hint="prompts may fill the sequences: a longer seq_length keeps the answers",
            )
        scale = self._scale.value
        settings = self._optimizer.settings(learning_rate, self._updates + 1, 1 / scale)
        with graph_mode(), self._training():
            if len(micro_batches) == 1 and self._world.world_size == 1:
                inputs = self._inputs(micro_batches[0], 0, scale)
                loss, norm, finite = self._whole(*inputs, settings).asnumpy().tolist()
            elif self._group is None and self._shared is None:
                loss = self._accumulate(micro_batches, scale, supervised)
                norm, finite = self._update_from_sums(settings)
            else:
                loss, gradients = self._gradients(micro_batches, scale, supervised)
                with self._collectives():
                    for exchange in self._exchanges:
                        exchange.sum(gradients)
                    self._meet(self._parted.update, (settings, *gradients))
                    norm, finite = self._parted.update(settings, *gradients).asnumpy().tolist()
        with self._collectives():
            self._optimizer.give_parameters()
        overflow = not finite
        if self._scaled:
            self._scale = self._scale.after(overflow=overflow)
        self._updates += not overflow
        return StepReport(loss, norm, learning_rate, overflow, scale, supervised)

    def parameters(self) -> Mapping[str, Array]:
        return LazyArrays({name: partial(self._stored, p) for name, p in self._parameters.items()})

    def state(self) -> Mapping[str, Array]:
        scalars = {
            "step": np.array(self._updates, np.int64),
            "loss_scale": np.array(self._scale.value, np.float32),
            "good_steps": np.array(self._scale.good_steps, np.int64),
        }
        return LazyArrays(
            {
                **{p.name: partial(self._stored_state, p) for p in self._optimizer.state},
                **{name: partial(np.array, number) for name, number in scalars.items()},
            }
        )

    def shares(self) -> Mapping[str, slice]:
        """See :class:`glm3.domain.ports.training.SupportsShares`."""
        return dict(self._rows) if self._shared is None else self._shared.shares.stored_rows

    def complete_parameters(self) -> Mapping[str, Array]:
        """See :class:`glm3.domain.ports.training.SupportsShares`."""
        return LazyArrays({name: partial(self._complete, p) for name, p in self._parameters.items()})

    def restore(self, parameters: Mapping[str, Array], state: Mapping[str, Array]) -> None:
        moments = {parameter.name: parameter for parameter in self._optimizer.state}
        if self._shared is None:
            wholes = complete_rows(parameters, self._shapes(), self._rows, self._communicator)
            own = own_rows(state, self._shapes(), self._rows)
        else:
            wholes = self._shared.shares.held_arrays(parameters)
            own = self._shared.shares.updated_arrays(state)
        require_fit(self._parameters, wholes)
        require_fit({**moments, **dict.fromkeys(_SCALARS)}, own)
        for name, parameter in self._parameters.items():
            set_parameter(parameter, wholes[name])
        self._optimizer.take_parameters()
        for name, parameter in moments.items():
            set_parameter(parameter, own[name])
        self._updates = int(state["step"])
        self._scale = evolve(
            self._scale, value=float(state["loss_scale"]), good_steps=int(state["good_steps"])
        )

    def _gradients(
        self, micro_batches: Sequence[MicroBatch], scale: float, supervised: int
    ) -> tuple[float, list[Tensor]]:
        """Return the loss of all ranks, which have come together, and this rank's share of the gradients."""
        if len(micro_batches) > 1:
            loss = self._accumulate(micro_batches, scale, supervised)
            assert self._split is not None  # noqa: S101 - it was just accumulated into
            return loss, list(self._split.sums)
        weight = micro_batches[0].supervised_tokens / supervised
        inputs = self._inputs(micro_batches[0], 0, weight * scale)
        self._meet(self._parted.gradients, inputs)
        with self._collectives():
            own, gradients = self._parted.gradients(*inputs)
            loss = weight * float(own.asnumpy())
        return self._all_ranks(loss), list(gradients)

    def _accumulate(self, micro_batches: Sequence[MicroBatch], scale: float, supervised: int) -> float:
        """Add this rank's gradients to sums and return the loss of all ranks."""
        if self._split is None:
            self._split = SplitStep(self._network, self._optimizer)
        self._split.clear()
        loss = 0.0
        for index, batch in enumerate(micro_batches):
            weight = batch.supervised_tokens / supervised
            inputs = self._inputs(batch, index, weight * scale)
            self._meet(self._split.accumulate, inputs)
            with self._collectives():
                loss += weight * float(self._split.accumulate(*inputs).asnumpy())
        return self._all_ranks(loss) if self._communicator.world_size > 1 else loss

    def _update_from_sums(self, settings: Tensor) -> tuple[float, float]:
        assert self._split is not None  # noqa: S101 - it was accumulated into
        if self._communicator.world_size > 1:
            self._split.load(self._communicator.all_reduce(self._split.flat()))
        norm, finite = self._split.update(settings).asnumpy().tolist()
        return norm, finite

    def _meet(self, graph: nn.Cell, inputs: tuple[Tensor, ...]) -> None:
        """Wait for the ranks that compute the same step: a graph that exchanges fails soon without them."""
        if self._shared is not None and isinstance(self._world, MindSporeCommunicator):
            graph.compile(*inputs)  # which takes each rank as long as it takes
            self._world.meet("the training step")

    def _stored(self, parameter: Parameter) -> Array:
        array = to_carrier(parameter)
        return array if self._shared is None else self._shared.shares.to_store(parameter.name, array)

    def _stored_state(self, state: Parameter) -> Array:
        array = to_carrier(state)
        if self._shared is None:
            return array
        return self._shared.shares.state_to_store(parameter_of(state.name), array)

    def _complete(self, parameter: Parameter) -> Array:
        array = to_carrier(parameter)
        return array if self._shared is None else self._shared.shares.complete(parameter.name, array)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}

    def _inputs(self, batch: MicroBatch, index: int, factor: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a graph takes of this rank's micro-batch number ``index``, and set its dropout."""
        if self._dropout_key is not None:
            self._dropout_key.set(self._seed, self._updates, self._communicator.rank, index)
        input_ids, targets = (
            ms.Tensor.from_numpy(np.ascontiguousarray(array, np.int32))
            for array in (batch.input_ids, batch.targets)
        )
        return input_ids, targets, ms.Tensor(factor, ms.float32)

    @contextmanager
    def _collectives(self) -> Iterator[None]:
        """Let the failure of a collective say who is missing."""
        if isinstance(self._world, MindSporeCommunicator):
            with self._world.native("the training step"):
                yield
        else:
            yield

    @contextmanager
    def _training(self) -> Iterator[None]:
        self._network.set_train(True)
        try:
            yield
        finally:
            self._network.set_train(False)

    def _all_ranks(self, value: float) -> float:
        return float(self._communicator.all_reduce(np.array(value, np.float64)))


def _rows_of(
    parameters: Mapping[str, Parameter],
    options: TrainOptions,
    communicator: Communicator,
    group: Group | None,
) -> dict[str, slice]:
    """Return the rows that this rank updates of parameters that are shared out.

    Raises:
        BackendError: the communicator cannot be compiled into a graph.
        ConfigError: the network itself is to be cut.
    """
    if options.cut is None:
        return {}
    require_plain(options.cut, communicator.world_size)
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    itemsizes = {name: dtype_of(parameter).itemsize for name, parameter in parameters.items()}
    rows = shared_rows(options.cut, shapes, itemsizes, communicator.rank)
    if rows and group is None:
        raise BackendError(
            "the optimizer is shared out among ranks of MindSpore's runtime only",
            found=type(communicator).__name__,
        )
    return rows
