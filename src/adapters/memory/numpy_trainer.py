"""The trainer port in plain numpy: only the output layer learns, by its exact gradient, or else a prefix.

Enough for a loss that falls, for checkpoints of every parameter and for a run that resumes bit for bit,
without a runtime. A prefix learns by central differences, two passes for each of its numbers: keep it small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from glm3.domain.errors import InvalidInputError
from glm3.domain.parameter_check import require_shapes
from glm3.domain.parameters import OUTPUT_LAYER
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.training import MicroBatch, StepReport
from glm3.domain.tensors import Array
from glm3.domain.training.loss_scale import DynamicLossScale
from glm3.domain.training.model_shares import ModelShares
from glm3.domain.training.options import TrainOptions, decays
from glm3.domain.training.shares import complete_rows, own_rows, parameter_of, require_plain, shared_rows

if TYPE_CHECKING:
    from glm3.adapters.memory.numpy_model import NumpyModel

__all__ = ["NumpyTrainer"]

FloatArray = NDArray[np.float32]

_NUDGE = np.float32(1e-2)  # float32 losses are too coarse for less, the third derivative too large for more


class NumpyTrainer:
    """Update the output layer of ``model``, or its prefix if it has one.

    Without a prefix every parameter has moments, and those of all but the output layer stay zero. Ranks share
    the optimizer out as the options' cut says. Of matrices that they share each computes everything all the
    same; what it stores is its part.
    """

    def __init__(self, model: NumpyModel, options: TrainOptions, communicator: Communicator) -> None:
        self._model, self._options, self._communicator = model, options, communicator
        prefix = model.adapter_parameters()
        self._learned = list(prefix) or [OUTPUT_LAYER]
        self._weights: dict[str, FloatArray] = prefix or model.parameters()
        for name, array in self._weights.items():
            self._weights[name] = np.array(array)
        model.replace(self._weights)
        self._shapes = {name: array.shape for name, array in self._weights.items()}
        self._rows: dict[str, slice] = {}
        self._parts: ModelShares | None = None
        if options.cut is not None and options.cut.model_parallel > 1:
            itemsize = next(iter(self._weights.values())).itemsize
            self._parts = ModelShares.among(model.config, options.cut, itemsize, communicator)
            self._communicator = self._parts.data
        elif options.cut is not None:
            require_plain(options.cut, communicator.world_size)
            itemsizes = {name: array.itemsize for name, array in self._weights.items()}
            self._rows = shared_rows(options.cut, self._shapes, itemsizes, communicator.rank)
        self._moments = {
            f"{kind}.{name}": np.zeros_like(self._own(name))
            for kind in ("adam_m", "adam_v")
            for name in self._weights
        }
        self._updates = 0
        self._scale = DynamicLossScale(
            options.loss_scale or 1.0, factor=options.scale_factor, window=options.scale_window
        )

    def step(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> StepReport:
        """See :class:`glm3.domain.ports.training.Trainer`."""
        supervised = int(self._sum(np.array(sum(b.supervised_tokens for b in micro_batches))))
        if not supervised:
            raise InvalidInputError("nothing to learn", field="targets", expected="a target beside -100")
        parts = [self._gradient(batch) for batch in micro_batches]
        loss = float(self._sum(np.array(sum(part[0] for part in parts)))) / supervised
        gradients, squares = [], 0.0
        for i, name in enumerate(self._learned):
            summed = np.sum([part[1][i] for part in parts], axis=0)
            if name in self._rows:
                gradients.append(self._communicator.reduce_scatter(summed) / supervised)
                squares += float(self._sum(np.array(np.square(gradients[i], dtype=np.float64).sum())))
            else:
                gradients.append(self._sum(summed) / supervised)
                squares += float(np.square(gradients[i], dtype=np.float64).sum())
        norm = float(np.sqrt(squares))
        overflow = not np.isfinite(norm)
        scale = self._scale.value
        if self._options.loss_scale is not None:
            self._scale = self._scale.after(overflow=overflow)
        if not overflow:
            self._update(gradients, norm, learning_rate)
        return StepReport(loss, norm, learning_rate, overflow, scale, supervised)

    def parameters(self) -> Mapping[str, Array]:
        """See :class:`glm3.domain.ports.training.Trainer`."""
        if self._parts is None:
            return self.complete_parameters()
        boxes = {name: self._parts.stored(name, sharded=False) for name in self._weights}
        return {name: np.array(array[boxes[name]]) for name, array in self._weights.items()}

    def complete_parameters(self) -> Mapping[str, Array]:
        """See :class:`glm3.domain.ports.training.SupportsShares`."""
        return {name: np.array(array) for name, array in self._weights.items()}

    def state(self) -> Mapping[str, Array]:
        """See :class:`glm3.domain.ports.training.Trainer`."""
        return {
            **{name: self._stored_moment(name) for name in self._moments},
            "step": np.array(self._updates, np.int64),
            "loss_scale": np.array(self._scale.value, np.float32),
            "good_steps": np.array(self._scale.good_steps, np.int64),
        }

    def shares(self) -> Mapping[str, slice]:
        """See :class:`glm3.domain.ports.training.SupportsShares`."""
        return dict(self._rows) if self._parts is None else self._parts.stored_rows

    def restore(self, parameters: Mapping[str, Array], state: Mapping[str, Array]) -> None:
        """See :class:`glm3.domain.ports.training.Trainer`."""
        wanted = {**self._weights, **self._moments}
        if self._parts is None:
            wholes = complete_rows(parameters, self._shapes, self._rows, self._communicator)
            own = own_rows(state, self._shapes, self._rows)
        else:
            wholes = {name: self._parts.complete_of_store(name, a) for name, a in parameters.items()}
            own = {
                name: self._parts.complete_of_store(parameter_of(name), array, name)
                for name, array in state.items()
                if parameter_of(name) in wholes
            }
        given = {**wholes, **{n: a for n, a in own.items() if n.startswith("adam_")}}
        require_shapes({n: a.shape for n, a in given.items()}, {n: a.shape for n, a in wanted.items()})
        for name, array in wanted.items():
            array[...] = given[name]
        self._updates = int(state["step"])
        self._scale = DynamicLossScale(
            float(state["loss_scale"]),
            factor=self._options.scale_factor,
            window=self._options.scale_window,
            good_steps=int(state["good_steps"]),
        )

    def _stored_moment(self, name: str) -> Array:
        array = self._moments[name]
        return np.array(array if self._parts is None else array[self._parts.stored(parameter_of(name))])

    def _gradient(self, batch: MicroBatch) -> tuple[float, list[FloatArray]]:
        """Return the summed loss of a micro-batch and its gradient by each array that learns."""
        loss, gradient = self._loss(batch)
        if self._learned == [OUTPUT_LAYER]:
            return loss, [gradient]
        return loss, [self._differences(batch, self._weights[name]) for name in self._learned]

    def _differences(self, batch: MicroBatch, weights: FloatArray) -> FloatArray:
        found = np.zeros_like(weights)
        for place in np.ndindex(*weights.shape):
            kept = weights[place]
            weights[place] = kept + _NUDGE
            above = self._loss(batch)[0]
            weights[place] = kept - _NUDGE
            found[place] = (above - self._loss(batch)[0]) / (2 * _NUDGE)
            weights[place] = kept
        return found

    def _loss(self, batch: MicroBatch) -> tuple[float, FloatArray]:
        """Return the summed loss of a micro-batch and its gradient by the output layer."""
        hidden = self._model.normed_states(batch.input_ids.astype(np.int64))
        learned = batch.targets != -100
        states, targets = hidden[learned], batch.targets[learned]
        scores = states @ self._model.output_weight.T
        scores -= scores.max(axis=-1, keepdims=True)
        chances = np.exp(scores)
        chances /= chances.sum(axis=-1, keepdims=True)
        rows = np.arange(len(targets))
        loss = float(-np.log(np.maximum(chances[rows, targets], np.float32(1e-30))).sum())
        if not np.isfinite(states).all():
            loss = float("nan")
        chances[rows, targets] -= 1
        return loss, chances.T @ states

    def _update(self, gradients: Sequence[FloatArray], norm: float, learning_rate: float) -> None:
        options = self._options
        factor = np.float32(1.0)
        if options.max_grad_norm is not None:
            factor = np.float32(min(1.0, options.max_grad_norm / (norm + 1e-6)))
        self._updates += 1
        first = second = 1.0
        if options.optimizer.bias_correction:
            first, second = 1 - options.beta1**self._updates, 1 - options.beta2**self._updates
        for name, gradient in zip(self._learned, gradients, strict=True):
            mean, square = (self._moments[f"{kind}.{name}"] for kind in ("adam_m", "adam_v"))
            clipped = gradient * factor
            mean += np.float32(1 - options.beta1) * (clipped - mean)
            square += np.float32(1 - options.beta2) * (clipped * clipped - square)
            root = np.sqrt(square / np.float32(second))
            change = (mean / np.float32(first)) / (root + np.float32(options.eps))
            weight = self._own(name)
            decay = options.weight_decay if decays(name, weight.shape) else 0.0
            weight -= np.float32(learning_rate) * (change + np.float32(decay) * weight)
            if name in self._rows:
                self._weights[name][...] = np.concatenate(self._communicator.all_gather(weight))

    def _own(self, name: str) -> FloatArray:
        """Return the rows of a parameter that this rank updates, to write into."""
        return self._weights[name][self._rows.get(name, slice(None))]

    def _sum(self, array: Array) -> Array:
        return self._communicator.all_reduce(array)
