"""A learned prefix in front of every layer's keys and values (P-tuning v2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mindspore import Parameter, nn, ops
from numpy.typing import NDArray

from glm3.adapters.mindspore.kernels.base import HeadLayout, Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork, tables_behind
from glm3.adapters.mindspore.training.adapter_parameters import AdapterParameters
from glm3.adapters.mindspore.training.dropout import DropoutKey, KeyedDropout
from glm3.domain.training.prefix import (
    PREFIX_EMBEDDING,
    PREFIX_PROJECTION,
    PrefixConfig,
    initial_prefix,
    prefix_keys_values,
)

__all__ = ["PrefixEncoder", "PrefixTuning"]


class PrefixEncoder(nn.Cell):
    """Make keys and values of every layer, ``(length, num_kv_heads * head_dim)`` each."""

    def __init__(
        self,
        network: ChatGLMNetwork,
        parameters: Mapping[str, Parameter],
        dropout: float,
        key: DropoutKey,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.kernels = network.kernels
        self.width = HeadLayout.of(network.config).kv_size
        self.embedding = parameters[PREFIX_EMBEDDING]
        self.projection = PREFIX_PROJECTION[0] in parameters
        if self.projection:
            self.inner, self.inner_bias, self.outer, self.outer_bias = (
                parameters[name] for name in PREFIX_PROJECTION
            )
        self.dropout = KeyedDropout(self.kernels, dropout, key, 0) if dropout else None

    def construct(self) -> tuple[Tensor, ...]:
        """Return the keys of the first layer, its values, the keys of the second layer, …"""
        x = self.embedding
        if self.projection:
            x = ops.tanh(self.kernels.linear(x, self.inner, self.inner_bias))
            x = self.kernels.linear(x, self.outer, self.outer_bias)
        if self.dropout is not None:
            x = self.dropout(x)
        return ops.split(x, self.width, 1)


class PrefixTuning(AdapterParameters):
    """The prefix of one network, float32 and all that is trained of it while it is there.

    ``cos_table`` and ``sin_table`` are the network's behind one row for each place of the prefix: in a cache
    the prefix comes first, and what follows it is rotated as if it were not there.
    """

    def __init__(self, network: ChatGLMNetwork, config: PrefixConfig, seed: int) -> None:
        super().__init__(network, initial_prefix(network.config, config, seed))
        self.length = config.length
        self._config = network.config
        self._encoder = PrefixEncoder(network, self._parameters, config.dropout, self.key)
        self._encoder.set_train(False)
        network.prefix = self._encoder
        self.cos_table, self.sin_table = tables_behind((network.cos_table, network.sin_table), config.length)

    def keys_values(self) -> NDArray[np.float32]:
        """Return what stands in front, ``(length, num_layers, 2, num_kv_heads, kv_channels)``, keys first."""
        return prefix_keys_values(self._config, self.parameters())
