"""Fill a network from a checkpoint of any format, one tensor at a time."""

from __future__ import annotations

from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.adapters.mindspore.tensors import to_tensor
from glm3.domain.errors import CheckpointError
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameter_check import require_fit
from glm3.domain.parameters import from_mindspore_name, is_model_parameter
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.tensors import Array, DType, TensorSpec, from_float32, to_float32

__all__ = ["load_weights", "stored_parameters"]


def load_weights(network: ChatGLMNetwork, reader: CheckpointReader) -> None:
    """Set every parameter, converted to the dtype the network stores.

    Nothing is changed unless every name and shape fits. An array that needs no conversion is shared, not
    copied: a mapped file then backs the parameter, and its pages are read as they are used.

    Raises:
        ParameterMismatchError: with every parameter that is missing, unexpected or of another shape.
        CheckpointError: a parameter is stored as integers.
    """
    stored = stored_parameters(reader, network.config)
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    for name, spec in stored.items():
        array = _converted(reader.read(spec.name), spec.dtype, network.dtype)
        parameters[name].set_data(to_tensor(array, network.dtype))


def stored_parameters(reader: CheckpointReader, config: ModelConfig) -> dict[str, TensorSpec]:
    """Return what a checkpoint stores of each parameter, by Hugging Face name.

    Raises:
        ParameterMismatchError: with every parameter that is missing, unexpected or of another shape.
        CheckpointError: a parameter is stored as integers.
    """
    stored = {
        from_mindspore_name(name): spec for name, spec in reader.tensors.items() if is_model_parameter(name)
    }
    require_fit({name: spec.shape for name, spec in stored.items()}, config)
    for name, spec in stored.items():
        if not spec.dtype.is_floating:
            raise CheckpointError(
                "not a weight", field=name, expected="floating-point numbers", found=spec.dtype.value
            )
    return stored


def _converted(array: Array, source: DType, target: DType) -> Array:
    return array if source is target else from_float32(to_float32(array, source), target)
