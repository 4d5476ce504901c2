"""The model backend port over numpy: slow, short, and independent of every runtime."""

from __future__ import annotations

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import from_mindspore_name, is_model_parameter
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.ports.model import LanguageModel
from glm3.domain.quantization import dequantize, quantize_rows
from glm3.domain.quantization.rounded_checkpoint import rounded_checkpoint
from glm3.domain.tensors import to_float32

__all__ = ["NumpyBackend"]


class NumpyBackend:
    """Hold weights as float32 arrays, whatever precision and kernels the options ask for.

    Rounded weights are what their levels stand for; inputs are not rounded.
    """

    def load(
        self, config: ModelConfig, weights: CheckpointReader | None, options: LoadOptions
    ) -> LanguageModel:
        """Return the numpy model over ``weights``, or over random numbers where there are none.

        Raises:
            ParameterMismatchError: the weights do not fit the configuration.
            ConfigError: they are rounded by another scheme than the options ask.
        """
        if weights is None:
            return NumpyModel.random(config, options.seed)
        scheme = options.scheme
        rounded = rounded_checkpoint(weights, config.quantization_bit)
        if rounded is not None:
            rounded.require_scheme(scheme)
            weights, scheme = rounded, None
        arrays = {
            from_mindspore_name(name): to_float32(weights.read(name), spec.dtype)
            for name, spec in weights.tensors.items()
            if is_model_parameter(name)
        }
        if scheme is not None:
            for name, array in arrays.items():
                if array.ndim == 2:
                    arrays[name] = dequantize(quantize_rows(array, scheme))
        return NumpyModel(config, arrays)
