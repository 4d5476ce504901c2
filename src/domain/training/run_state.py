"""What a training checkpoint holds: parameters, optimizer state, counters, under MindSpore's names.

The position in the data needs no more than the number of steps done: rows are a pure function of it, see
:class:`glm3.domain.training.sampling_order.SamplingOrder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from attrs import field, frozen

from glm3.domain.errors import CheckpointError
from glm3.domain.parameters import from_mindspore_name, to_mindspore_name
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.tensors import Array, DType, TensorSpec

__all__ = ["RunState", "spec_of"]

_FIRST_MOMENT = "adam_m."
_COUNTERS = ("epoch_num", "step_num", "global_step")


@frozen(eq=False, kw_only=True)
class RunState:
    """Everything that the next step depends on, after ``steps_done`` steps of ``steps_per_epoch`` each.

    ``parameters`` and ``trainer_state`` are the trainer's own, by Hugging Face name. Of a parameter in
    ``shares`` only these rows are stored, as its moments are: other ranks store the others.
    """

    steps_done: int
    steps_per_epoch: int
    parameters: Mapping[str, Array]
    trainer_state: Mapping[str, Array]
    shares: Mapping[str, slice] = field(factory=dict)

    def tensors(self) -> Iterator[tuple[TensorSpec, Array]]:
        """Yield every tensor of the file, counters last.

        MindSpore resumes from ``epoch_num`` (epochs begun) and ``step_num`` (steps done);
        ``global_step`` counts the updates of the optimizer, which skips a step that overflows.
        """
        yield from self.weights()
        for name, array in self.trainer_state.items():
            yield spec_of(_stored_name(name), array), array
        updates = int(self.trainer_state.get("step", np.int64(self.steps_done)))
        epochs_begun = -(-self.steps_done // self.steps_per_epoch)
        for name, number in zip(_COUNTERS, (epochs_begun, self.steps_done, updates), strict=True):
            value = np.asarray(number, np.int64)
            yield spec_of(name, value), value

    def weights(self) -> Iterator[tuple[TensorSpec, Array]]:
        """Yield the parameters alone."""
        for name, whole in self.parameters.items():
            array = whole[self.shares[name]] if name in self.shares else whole
            yield spec_of(to_mindspore_name(name), array), array

    @staticmethod
    def steps_in(reader: CheckpointReader) -> int:
        """Return the steps done that a checkpoint tells.

        Raises:
            CheckpointError: it holds weights alone, and no training can go on from it.
        """
        if "step_num" not in reader.tensors:
            raise CheckpointError(
                "holds no state of a training run",
                field="step_num",
                hint="resume from a file in output/checkpoint/rank_0; "
                "to start anew from these weights set resume_training: False",
            )
        return int(reader.read("step_num"))

    @classmethod
    def read(cls, reader: CheckpointReader, steps_per_epoch: int) -> RunState:
        """Read back what :meth:`tensors` gave.

        Raises:
            CheckpointError: it holds weights alone.
        """
        parameters: dict[str, Array] = {}
        state: dict[str, Array] = {}
        trained = {
            name.removeprefix(_FIRST_MOMENT) for name in reader.tensors if name.startswith(_FIRST_MOMENT)
        }
        for name in reader.tensors:
            if name in _COUNTERS:
                continue
            if name in trained:
                parameters[from_mindspore_name(name)] = reader.read(name)
            else:
                state[_own_name(name)] = reader.read(name)
        return cls(
            steps_done=cls.steps_in(reader),
            steps_per_epoch=steps_per_epoch,
            parameters=parameters,
            trainer_state=state,
        )


def spec_of(name: str, array: Array) -> TensorSpec:
    """Describe a carried array; 16-bit patterns are bfloat16, see :mod:`glm3.domain.tensors`."""
    dtype = DType.BFLOAT16 if array.dtype == np.uint16 else DType(array.dtype.name)
    return TensorSpec(name, dtype, array.shape)


def _stored_name(name: str) -> str:
    """Return MindSpore's name of a state; those of one parameter are called ``KIND.PARAMETER``."""
    kind, dot, parameter = name.partition(".")
    return kind + dot + to_mindspore_name(parameter)


def _own_name(name: str) -> str:
    kind, dot, parameter = name.partition(".")
    return kind + dot + from_mindspore_name(parameter)
