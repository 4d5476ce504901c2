"""Low-rank adapters beside a network's linear layers."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, nn

from glm3.adapters.mindspore.kernels.base import Kernels, Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork, Linear
from glm3.adapters.mindspore.tensors import dtype_of, to_carrier, to_tensor
from glm3.adapters.mindspore.training.adapter_parameters import AdapterParameters
from glm3.adapters.mindspore.training.dropout import KeyedDropout
from glm3.domain.tensors import from_float32, to_float32
from glm3.domain.training.lora import (
    LoRAConfig,
    adapted_modules,
    adapter_names,
    adapter_shapes,
    initial_adapter,
    merge,
)

__all__ = ["Adapter", "LoRALinear"]


class LoRALinear(nn.Cell):
    """A linear layer with an adapter: ``x W^T + bias + scale * dropout(x) a^T b^T``."""

    def __init__(
        self,
        kernels: Kernels,
        base: Linear,
        matrices: tuple[Parameter, Parameter],
        scale: float,
        dropout: KeyedDropout | None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.kernels = kernels
        self.base = base
        self.a, self.b = matrices
        self.scale = scale
        self.dropout = dropout

    def construct(self, x: Tensor) -> Tensor:
        y = self.base.construct(x)
        if self.dropout is not None:
            x = self.dropout(x)
        low = self.kernels.linear(x, self.a, None) * self.scale
        return y + self.kernels.linear(low, self.b, None)


class Adapter(AdapterParameters):
    """Adapters of one network, float32 and all that is trained of it while they are there.

    ``a`` is drawn from ``seed``; ``b`` is zero, so that the network answers as before.
    """

    def __init__(self, network: ChatGLMNetwork, config: LoRAConfig, seed: int) -> None:
        generator = np.random.default_rng(seed)
        shapes = adapter_shapes(network.config, config)
        super().__init__(
            network, {name: initial_adapter(name, shape, generator) for name, shape in shapes.items()}
        )
        self._layers: list[tuple[nn.Cell, str, LoRALinear]] = []
        for salt, module in enumerate(adapted_modules(network.config, config)):
            a, b = adapter_names(module)
            block, place = _place(network, module)
            layer = LoRALinear(
                network.kernels,
                getattr(block, place),
                (self._parameters[a], self._parameters[b]),
                config.scale,
                KeyedDropout(network.kernels, config.dropout, self.key, salt) if config.dropout else None,
            )
            layer.set_train(False)
            setattr(block, place, layer)
            self._layers.append((block, place, layer))

    def remove(self) -> None:
        """Take the adapters away; the network's own parameters are trained again."""
        for block, place, layer in self._layers:
            setattr(block, place, layer.base)
        self.release()

    def merge(self) -> None:
        """Fold the adapters into the network's weights, then :meth:`remove` them."""
        for _, _, layer in self._layers:
            weight = layer.base.weight
            dtype = dtype_of(weight)
            merged = merge(
                to_float32(to_carrier(weight), dtype), layer.a.asnumpy(), layer.b.asnumpy(), layer.scale
            )
            weight.set_data(to_tensor(from_float32(merged, dtype), dtype))
        self.remove()


def _place(network: ChatGLMNetwork, module: str) -> tuple[nn.Cell, str]:
    """Return the block that holds a module, and the attribute it is there."""
    *_, layer, _, name = module.split(".")
    return network.layers[int(layer)], name
