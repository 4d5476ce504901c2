"""Build networks over the Ascend kernel set, fused or by reference."""

from __future__ import annotations

from collections.abc import Collection

from glm3.adapters.mindspore.ascend_model import AscendModel
from glm3.adapters.mindspore.kernels.ascend.kernels import AscendKernels
from glm3.adapters.mindspore.kernels.ascend.reference import OperatorSettings
from glm3.adapters.mindspore.kernels.ascend.rules import RULES
from glm3.adapters.mindspore.kernels.base import HeadLayout
from glm3.adapters.mindspore.loading import load_weights
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.tensors import DType


def ascend_network(
    config: ModelConfig,
    fused: Collection[str] = (),
    dtype: DType = DType.FLOAT32,
    stored: DType | None = None,
) -> ChatGLMNetwork:
    """Build a network whose weights are ``stored`` in the precision it computes in, unless said otherwise.

    Calls of every operator are verified where the heads are as wide as they must be.
    """
    settings = OperatorSettings(HeadLayout.of(config), config.layernorm_epsilon)
    checked = () if config.kv_channels % 16 else RULES
    return ChatGLMNetwork(config, AscendKernels(settings, fused, dtype, checked), stored or dtype)


def reference_model(config: ModelConfig, parameters: CheckpointReader) -> AscendModel:
    """Build a float32 model whose fused operators are all replaced by their references."""
    network = ascend_network(config)
    load_weights(network, parameters)
    return AscendModel(network)
