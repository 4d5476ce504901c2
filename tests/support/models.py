"""Build the model adapters over the same weights, and small configurations to build them with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.mindspore.runtime import prepare
from glm3.domain.model_config import ModelConfig
from glm3.domain.tensors import Array, DType, TensorSpec
from support.native import kernel_build

prepare()

from glm3.adapters.mindspore.ascend_model import AscendModel  # noqa: E402 - imports mindspore
from glm3.adapters.mindspore.inference.model import NativeModel  # noqa: E402 - imports mindspore
from glm3.adapters.mindspore.inference.weights import StoredArray  # noqa: E402
from glm3.adapters.mindspore.kernels.base import HeadLayout, Kernels  # noqa: E402
from glm3.adapters.mindspore.kernels.cpu import CpuKernels  # noqa: E402
from glm3.adapters.mindspore.kernels.stock import StockKernels  # noqa: E402
from glm3.adapters.mindspore.loading import load_weights  # noqa: E402
from glm3.adapters.mindspore.model import MindSporeModel  # noqa: E402
from glm3.adapters.mindspore.network import ChatGLMNetwork  # noqa: E402
from support.ascend import reference_model  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_MODELS = ("tiny", "rope50", "wide_heads")


class ArrayReader:
    """A checkpoint reader over arrays in memory."""

    metadata: Mapping[str, str] = {}

    def __init__(self, arrays: Mapping[str, Array], dtypes: Mapping[str, DType] | None = None) -> None:
        self.arrays = arrays
        dtypes = dtypes or {}
        self.tensors = {
            name: TensorSpec(name, dtypes.get(name) or DType(array.dtype.name), array.shape)
            for name, array in arrays.items()
        }

    def read(self, name: str, rows: slice | None = None) -> Array:
        return self.arrays[name] if rows is None else self.arrays[name][rows]


def tiny_config(**changes: object) -> ModelConfig:
    """Return a configuration small enough to run in milliseconds; 4 query heads over 2 key heads."""
    values = {
        "num_layers": 2,
        "padded_vocab_size": 48,
        "hidden_size": 24,
        "ffn_hidden_size": 40,
        "kv_channels": 8,
        "num_attention_heads": 4,
        "multi_query_group_num": 2,
        "seq_length": 32,
    }
    return ModelConfig.from_mapping(values | changes)


KERNEL_SETS = ("stock", "cpu")


def kernel_set(name: str, config: ModelConfig) -> Kernels:
    """Return a kernel set for a network; skip the test where it cannot be built."""
    if name == "stock":
        return StockKernels(HeadLayout.of(config))
    return CpuKernels(HeadLayout.of(config), kernel_build().path)


def mindspore_model(
    config: ModelConfig,
    parameters: Mapping[str, Array],
    *,
    kernels: str = "stock",
    dtype: DType = DType.FLOAT32,
    dtypes: Mapping[str, DType] | None = None,
) -> MindSporeModel:
    """Build the MindSpore model; ``dtypes`` says what arrays carry that do not say it themselves."""
    network = ChatGLMNetwork(config, kernel_set(kernels, config), dtype)
    load_weights(network, ArrayReader(parameters, dtypes))
    return MindSporeModel(network)


def native_model(
    config: ModelConfig,
    parameters: Mapping[str, Array],
    *,
    dtypes: Mapping[str, DType] | None = None,
    kv_cache: str = "fp32",
) -> NativeModel:
    """Build the native model over plain weights."""
    specs = ArrayReader(parameters, dtypes).tensors
    weights = {name: StoredArray(array, specs[name].dtype) for name, array in parameters.items()}
    return NativeModel(config, weights, kernel_build().path, kv_cache)


def ascend_model(config: ModelConfig, parameters: Mapping[str, Array]) -> AscendModel:
    """Build a float32 model over the Ascend kernel set, whose fused operators are computed by reference."""
    return reference_model(config, ArrayReader(parameters))


BUILDERS = {
    NumpyModel: NumpyModel,
    MindSporeModel: mindspore_model,
    NativeModel: native_model,
    AscendModel: ascend_model,
}
"""Each adapter of the language model port, and how to build it from a configuration and its parameters."""


def golden_arrays(name: str) -> dict[str, Array]:
    """Return the reference outputs of a golden model."""
    with np.load(GOLDEN / name / "golden.npz") as arrays:
        return dict(arrays)


def golden_config(name: str) -> ModelConfig:
    path = GOLDEN / name / "hf" / "config.json"
    return ModelConfig.from_mapping(json.loads(path.read_text()), path)


def golden_parameters(name: str) -> dict[str, Array]:
    """Return a golden model's weights by Hugging Face name, without what every network recomputes."""
    parameters: dict[str, Array] = {}
    for shard in sorted((GOLDEN / name / "hf").glob("*.safetensors")):
        parameters |= load_file(shard)
    return {key: array for key, array in parameters.items() if not key.endswith("inv_freq")}
