"""Parameters that are trained beside a network that is frozen meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

import mindspore as ms
import numpy as np
from mindspore import Parameter

from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.adapters.mindspore.tensors import to_carrier
from glm3.adapters.mindspore.training.dropout import DropoutKey
from glm3.domain.parameter_check import require_shapes
from glm3.domain.tensors import Array

__all__ = ["AdapterParameters"]


class AdapterParameters:
    """What any adapter has: float32 parameters, a key for its dropouts, and a base that does not move.

    Args:
        network: is frozen.
        initial: the parameters by name.
    """

    def __init__(self, network: ChatGLMNetwork, initial: Mapping[str, Array]) -> None:
        self.key = DropoutKey()
        self._parameters = {name: Parameter(ms.Tensor(array), name=name) for name, array in initial.items()}
        self._frozen = network.trainable_params()
        for parameter in self._frozen:
            parameter.requires_grad = False

    def parameters(self) -> dict[str, Array]:
        """Return copies of the adapter's parameters by name."""
        return {name: to_carrier(parameter) for name, parameter in self._parameters.items()}

    def set_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Replace all of them.

        Raises:
            ParameterMismatchError: names or shapes differ.
        """
        require_shapes(
            {name: array.shape for name, array in parameters.items()},
            {name: tuple(parameter.shape) for name, parameter in self._parameters.items()},
        )
        for name, parameter in self._parameters.items():
            parameter.set_data(ms.Tensor(parameters[name].astype(np.float32)))

    def release(self) -> None:
        """Let the network's own parameters be trained again."""
        for parameter in self._frozen:
            parameter.requires_grad = True
