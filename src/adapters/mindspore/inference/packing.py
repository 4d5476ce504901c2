"""The packed weights of a checkpoint: rounded while it is loaded, or taken as they are stored."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from glm3.adapters.mindspore.inference.decoder import quantize_natively
from glm3.adapters.mindspore.inference.weights import StoredArray, Weights
from glm3.adapters.mindspore.loading import stored_parameters
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.quantization import PackedWeight, QuantScheme
from glm3.domain.quantization.rounded_checkpoint import RoundedCheckpoint
from glm3.domain.tensors import Array, DType, to_float32

__all__ = ["pack_weights", "packed_weights"]

_log = logging.getLogger(__name__)

_PLAIN = (DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16)


def pack_weights(
    config: ModelConfig, reader: CheckpointReader, scheme: QuantScheme, library: Path
) -> Weights:
    """Return every matrix rounded by ``scheme`` and every vector in float32.

    Raises:
        ParameterMismatchError: the weights do not fit the configuration.
        CheckpointError: a parameter is stored as integers.
        InvalidInputError: a weight is not finite or too large for its scale.
    """
    started = time.perf_counter()
    weights: dict[str, PackedWeight | StoredArray] = {}
    for name, spec in stored_parameters(reader, config).items():
        array = np.ascontiguousarray(reader.read(spec.name))
        if len(spec.shape) == 1:
            weights[name] = _wide(array, spec.dtype)
            continue
        dtype = spec.dtype
        if dtype not in _PLAIN:
            array, dtype = to_float32(array, dtype), DType.FLOAT32
        weights[name] = quantize_natively(library, array, dtype, scheme, name)
    _log.info("rounded the weights to %s in %.1f s", scheme.name, time.perf_counter() - started)
    return weights


def packed_weights(config: ModelConfig, rounded: RoundedCheckpoint) -> Weights:
    """Return the weights of a rounded checkpoint: matrices as they lie in the file, vectors in float32.

    Raises:
        ParameterMismatchError: the weights do not fit the configuration.
        CheckpointError: what is stored is not what the file says of it.
    """
    weights: dict[str, PackedWeight | StoredArray] = {}
    for name, spec in stored_parameters(rounded, config).items():
        if name in rounded.forms:
            weights[name] = rounded.packed(name)
            continue
        array = np.ascontiguousarray(rounded.read(name))
        if len(spec.shape) == 1 or spec.dtype not in _PLAIN:
            weights[name] = _wide(array, spec.dtype)
        else:
            weights[name] = StoredArray(array, spec.dtype)
    return weights


def _wide(array: Array, dtype: DType) -> StoredArray:
    return StoredArray(np.array(to_float32(array, dtype)), DType.FLOAT32)
