"""AdamW over a network's parameters as a cell of a compiled training step, and its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mindspore as ms
import numpy as np
from attrs import frozen
from mindspore import Parameter, ParameterTuple, nn, ops
from numpy.typing import NDArray

from glm3.adapters.mindspore.kernels.adamw import step_settings
from glm3.adapters.mindspore.kernels.base import Kernels, Tensor
from glm3.adapters.mindspore.training.exchange import Group
from glm3.domain.training.options import TrainOptions, decays

__all__ = ["NormShares", "Optimizer", "float32_parameters"]


@frozen
class NormShares:
    """How much of the gradients' norm is a rank's where ranks share the network: over ``group`` all of it.

    ``portions`` are rows of each gradient, from and to, with one over the number of ranks that have them.
    """

    group: Group
    portions: Mapping[str, tuple[tuple[int, int, float], ...]]


def float32_parameters(
    prefix: str, parameters: Sequence[Parameter], rows: Mapping[str, slice] | None = None
) -> ParameterTuple:
    """Return zeros of the parameters' shapes, or of ``rows`` of them, called ``prefix`` and their names."""
    made = []
    for parameter in parameters:
        shape = tuple(parameter.shape)
        if rows is not None and parameter.name in rows:
            own = rows[parameter.name]
            shape = (own.stop - own.start, *shape[1:])
        zeros = ms.Tensor.from_numpy(np.zeros(shape, np.float32))
        made.append(Parameter(zeros, name=prefix + parameter.name, requires_grad=False))
    return ParameterTuple(made)


class Optimizer(nn.Cell):
    """Unscale, test, clip and apply gradients; skip the update where any of them is not finite.

    Moments are float32 whatever the parameters are stored in, and so is the arithmetic: what is updated of a
    narrower parameter is a float32 copy. As a master copy it keeps what rounding takes from the parameter;
    where the options ask for none it is rounded as the parameter is.

    Of the parameters in ``rows`` a rank of ``group`` updates those rows only, in a float32 copy of them:
    gradients and states are of these rows. The other ranks' rows are collected afterwards.

    Where ranks share the network itself, ``norm`` tells how the norm counts what several ranks hold.

    ``parameters`` is in the order in which gradients are expected: those that decay, then the others.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        kernels: Kernels,
        options: TrainOptions,
        group: Group | None = None,
        rows: Mapping[str, slice] | None = None,
        norm: NormShares | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.kernels = kernels
        self.options = options
        decayed = [p for p in parameters if decays(p.name, p.shape)]
        plain = [p for p in parameters if not decays(p.name, p.shape)]
        self.parameters = ParameterTuple([*decayed, *plain])
        self.decayed = len(decayed)
        self.rows = dict(rows or {})
        self.shared = tuple(p.name in self.rows for p in self.parameters)
        self.means = float32_parameters("adam_m.", self.parameters, rows)
        self.squares = float32_parameters("adam_v.", self.parameters, rows)
        self.copied = ParameterTuple(
            [p for p in self.parameters if p.dtype != ms.float32 or p.name in self.rows]
        )
        self.copies = float32_parameters("master.", self.copied, rows)
        self.narrow = tuple(p.dtype != ms.float32 for p in self.copied)
        self.rounded = not options.master_weights
        copies = {p.name: copy for p, copy in zip(self.copied, self.copies, strict=True)}
        self.updated = ParameterTuple([copies.get(p.name, p) for p in self.parameters])
        self.max_grad_norm = options.max_grad_norm
        self.sum = None if group is None else ops.AllReduce(group=group.name)
        self.gather = None if group is None else group.gathering()
        self.everyone = None if norm is None else ops.AllReduce(group=norm.group.name)
        self.portions = () if norm is None else tuple(norm.portions[p.name] for p in self.parameters)
        self.take_parameters()

    @property
    def state(self) -> tuple[Parameter, ...]:
        """Everything a later step depends on besides the parameters and the count of steps."""
        masters = [copy for copy, narrow in zip(self.copies, self.narrow, strict=True) if narrow]
        return (*self.means, *self.squares, *(() if self.rounded else masters))

    def take_parameters(self) -> None:
        """Make the float32 copies equal to the parameters."""
        for parameter, copy in zip(self.copied, self.copies, strict=True):
            whole = ops.cast(parameter, ms.float32).asnumpy()
            copy.set_data(ms.Tensor.from_numpy(np.array(whole[self.rows.get(parameter.name, slice(None))])))

    def give_parameters(self) -> None:
        """Round the float32 copies into the parameters; eagerly, as graphs on the CPU cannot set bfloat16.

        Every rank must call it where rows are shared: they are collected one parameter after another.
        """
        for parameter, copy in zip(self.copied, self.copies, strict=True):
            whole = copy
            if self.gather is not None and parameter.name in self.rows:
                whole = self.gather(copy)
            if parameter.dtype == ms.float32:
                ops.assign(parameter, whole)  # new memory each step would not fit where the old one was
            else:
                parameter.set_data(ops.cast(whole, parameter.dtype))

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
        if self.everyone is not None:
            squares = self.everyone(self._portions(gradients).reshape(1))[0]
        else:
            squares = self._squares(gradients, False)
            if self.sum is not None and self.rows:
                squares = squares + self.sum(self._squares(gradients, True).reshape(1))[0]
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
                if self.narrow[i]:
                    copy = ops.depend(self.copies[i], done)
                    narrow = ops.cast(copy, self.copied[i].dtype)
                    done = ops.depend(done, ops.assign(self.copies[i], ops.cast(narrow, ms.float32)))
        return ops.depend(norm, done), finite

    def _squares(self, gradients: Sequence[Tensor], shared: bool) -> Tensor:
        """Return the sum of squares of the gradients that are shared out, or of the others."""
        squares = ops.zeros((), ms.float32)
        for i in range(len(gradients)):
            if self.shared[i] == shared:
                squares = squares + self.kernels.sum_of_squares(gradients[i])
        return squares

    def _portions(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return this rank's share of the sum of squares, of which all shares together are the whole."""
        squares = ops.zeros((), ms.float32)
        for i in range(len(gradients)):
            portions = self.portions[i]
            if len(portions) == 1:
                squares = squares + self.kernels.sum_of_squares(gradients[i]) * portions[0][2]
            else:
                for start, stop, weight in portions:
                    squares = squares + self.kernels.sum_of_squares(gradients[i][start:stop]) * weight
        return squares

    def _apply(self, start: int, stop: int, gradients: Sequence[Tensor], settings: Tensor) -> Tensor:
        return self.kernels.adamw(
            self.updated[start:stop],
            self.means[start:stop],
            self.squares[start:stop],
            gradients[start:stop],
            settings,
        )
