"""The weights of a network as the native decoder sees them, from arrays or from live MindSpore parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ctypes import POINTER, cast
from typing import Any

from attrs import field, frozen

from glm3.adapters.mindspore.inference.structures import (
    Block,
    Matrix,
    Network,
    Vector,
    address,
    packed_matrix,
    plain_matrix,
    plain_vector,
)
from glm3.adapters.mindspore.tensors import dtype_of
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import EMBEDDING, FINAL_NORM, OUTPUT_LAYER, layer_prefix, parameter_shapes
from glm3.domain.quantization import PackedWeight
from glm3.domain.tensors import Array, DType

__all__ = ["NetworkWeights", "StoredArray", "Weights", "weights_of_arrays", "weights_of_parameters"]

_PROJECTIONS = {
    "query_key_value": "self_attention.query_key_value",
    "dense": "self_attention.dense",
    "dense_h_to_4h": "mlp.dense_h_to_4h",
    "dense_4h_to_h": "mlp.dense_4h_to_h",
}
_NORMS = ("input_layernorm", "post_attention_layernorm")


@frozen(eq=False)
class StoredArray:
    """Numbers row by row, with the dtype that they carry."""

    array: Array
    dtype: DType


Weights = Mapping[str, PackedWeight | StoredArray]
"""Every parameter of a network by Hugging Face name: matrices in any storage, vectors plain."""


@frozen(eq=False)
class NetworkWeights:
    """The native description of a network, with what must live as long as it does."""

    network: Network
    kept: Any
    _moving: list[tuple[Matrix | Vector, Any]] = field(factory=list)

    def refresh(self) -> Network:
        """Return the description with today's addresses: setting a parameter's data moves it."""
        for place, parameter in self._moving:
            place.data = parameter.data_ptr()
        return self.network


def weights_of_arrays(config: ModelConfig, weights: Weights) -> NetworkWeights:
    """Describe a network whose parameters are arrays."""

    def fill(name: str, matrix: bool) -> Matrix | Vector:
        weight = weights[name]
        if isinstance(weight, PackedWeight):
            return packed_matrix(weight)
        where, shape = address(weight.array), weight.array.shape
        if matrix:
            return plain_matrix(where, (shape[0], shape[1]), weight.dtype)
        return plain_vector(where, weight.dtype)

    network, blocks = _describe(config, fill)
    return NetworkWeights(network, (weights, blocks))


def weights_of_parameters(config: ModelConfig, parameters: Mapping[str, Any]) -> NetworkWeights:
    """Describe a network over MindSpore parameters, whose memory is used where it is."""

    def fill(name: str, matrix: bool) -> Matrix | Vector:
        parameter = parameters[name]
        dtype = dtype_of(parameter)
        return plain_matrix(None, parameter.shape, dtype) if matrix else plain_vector(None, dtype)

    network, blocks = _describe(config, fill)
    moving = [(place, parameters[name]) for name, place in _places(config, network, blocks).items()]
    return NetworkWeights(network, (parameters, blocks), moving)


def _describe(config: ModelConfig, fill: Callable[[str, bool], Matrix | Vector]) -> tuple[Network, Any]:
    blocks = (Block * config.num_layers)()
    network = Network(
        config.num_layers,
        config.hidden_size,
        config.ffn_hidden_size,
        config.num_attention_heads,
        config.num_kv_heads,
        config.kv_channels,
        config.rotary_dim,
        config.padded_vocab_size,
        config.apply_residual_connection_post_layernorm,
        config.layernorm_epsilon,
        blocks=cast(blocks, POINTER(Block)),
    )
    for name, place in _places(config, network, blocks).items():
        filled = fill(name, isinstance(place, Matrix))
        for key in type(place)._fields_:  # a field of a structure is a view: assign to its parts
            setattr(place, key[0], getattr(filled, key[0]))
    return network, blocks


def _places(config: ModelConfig, network: Network, blocks: Any) -> dict[str, Matrix | Vector]:
    """Return where each parameter of the network is described."""
    places: dict[str, Matrix | Vector] = {
        EMBEDDING: network.embedding,
        FINAL_NORM: network.final_layernorm,
        OUTPUT_LAYER: network.output_layer.weight,
    }
    for layer, block in enumerate(blocks):
        prefix = layer_prefix(layer)
        for name in _NORMS:
            places[f"{prefix}{name}.weight"] = getattr(block, name)
        for own, name in _PROJECTIONS.items():
            places[f"{prefix}{name}.weight"] = getattr(block, own).weight
            places[f"{prefix}{name}.bias"] = getattr(block, own).bias
    return {name: places[name] for name in parameter_shapes(config)}
