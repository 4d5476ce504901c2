"""Learned prefixes (P-tuning v2, Liu et al. 2022): keys and values in front of every layer's own.

The network stays as it is; each layer attends to ``length`` keys and values besides those of the sequence.
They are not rotated, and the first real token still stands at position 0. Names, shapes and the order of the
columns are those of ChatGLM's own ``PrefixEncoder``: for each layer its keys, then its values, head by head.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.domain.errors import ConfigError, InvalidInputError, raise_faults
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameter_check import require_shapes
from glm3.domain.tensors import Array

__all__ = [
    "PREFIX_EMBEDDING",
    "PREFIX_PROJECTION",
    "PrefixConfig",
    "from_prefix_name",
    "initial_prefix",
    "is_prefix_parameter",
    "prefix_keys_values",
    "prefix_of",
    "prefix_shapes",
    "prefix_width",
    "replaced_prefix",
]

_ENCODER = "transformer.prefix_encoder."

PREFIX_EMBEDDING = f"{_ENCODER}embedding.weight"
PREFIX_PROJECTION = tuple(
    f"{_ENCODER}trans.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
)
"""Weight and bias of the two linear layers around tanh, in this order."""

_NAMES = (PREFIX_EMBEDDING, *PREFIX_PROJECTION)


@frozen(kw_only=True)
class PrefixConfig:
    """How a network is given a prefix.

    With ``projection`` two linear layers around tanh, ``projection_size`` wide inside (``hidden_size`` where
    None), make the keys and values from what is learned; without, they are what is learned. ``dropout`` is
    the share of their numbers that training sets to zero.

    Raises:
        ConfigError: a value is out of range; with every fault.
    """

    length: int = 128
    projection: bool = False
    projection_size: int | None = None
    dropout: float = 0.0

    def __attrs_post_init__(self) -> None:
        faults = []
        if self.length < 1:
            faults.append(
                ConfigError("out of range", field="pre_seq_len", expected="1 or more", found=self.length)
            )
        if self.projection_size is not None and self.projection_size < 1:
            faults.append(
                ConfigError(
                    "out of range", field="projection_dim", expected="1 or more", found=self.projection_size
                )
            )
        if not 0 <= self.dropout < 1:
            faults.append(
                ConfigError(
                    "out of range", field="dropout_prob", expected="from 0 to below 1", found=self.dropout
                )
            )
        raise_faults(f"{len(faults)} faults in the prefix", faults)


def prefix_width(model: ModelConfig) -> int:
    """Return how many numbers one place of the prefix has: keys and values of all layers."""
    return 2 * model.num_layers * model.num_kv_heads * model.kv_channels


def prefix_shapes(model: ModelConfig, prefix: PrefixConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter by name."""
    width = prefix_width(model)
    shapes: dict[str, tuple[int, ...]] = {PREFIX_EMBEDDING: (prefix.length, width)}
    if prefix.projection:
        inner = prefix.projection_size or model.hidden_size
        shapes |= zip(PREFIX_PROJECTION, ((inner, width), (inner,), (width, inner), (width,)), strict=True)
    return shapes


def initial_prefix(model: ModelConfig, prefix: PrefixConfig, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw the parameters as ChatGLM does: the embedding from N(0, 1), linear layers within 1/sqrt(inputs).

    Unlike a fresh low-rank adapter it changes the answers at once.
    """
    generator = np.random.default_rng(seed)
    drawn: dict[str, NDArray[np.float32]] = {}
    bound = 1.0
    for name, shape in prefix_shapes(model, prefix).items():
        if name == PREFIX_EMBEDDING:
            drawn[name] = generator.standard_normal(shape, np.float32)
            continue
        if len(shape) > 1:
            bound = shape[1] ** -0.5  # and so for the bias behind it
        drawn[name] = generator.uniform(-bound, bound, shape).astype(np.float32)
    return drawn


def prefix_keys_values(model: ModelConfig, parameters: Mapping[str, Array]) -> NDArray[np.float32]:
    """Return what a prefix puts in front, ``(length, num_layers, 2, num_kv_heads, kv_channels)``.

    Keys come before values; ``parameters`` are float32.
    """
    x: NDArray[np.float32] = parameters[PREFIX_EMBEDDING]
    if PREFIX_PROJECTION[0] in parameters:
        inner, inner_bias, outer, outer_bias = (parameters[name] for name in PREFIX_PROJECTION)
        x = np.tanh(x @ inner.T + inner_bias) @ outer.T + outer_bias
    return x.reshape(len(x), model.num_layers, 2, model.num_kv_heads, model.kv_channels)


def replaced_prefix(held: Mapping[str, Array], found: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
    """Return float32 copies of ``found``, which take the place of a model's parameters ``held``.

    Raises:
        InvalidInputError: the model has no prefix.
        ParameterMismatchError: names or shapes differ.
    """
    if not held:
        raise InvalidInputError("the model has no adapter", hint="add one first")
    require_shapes(
        {name: array.shape for name, array in found.items()},
        {name: array.shape for name, array in held.items()},
    )
    return {name: np.array(found[name], np.float32) for name in held}


def is_prefix_parameter(name: str) -> bool:
    """Tell the parameters of a prefix from those of the network they may lie beside."""
    return name.startswith(_ENCODER)


def from_prefix_name(name: str) -> str:
    """Return the full name of a prefix's parameter, which may have been saved without its beginning.

    Raises:
        ConfigError: it is none.
    """
    full = _ENCODER + name.removeprefix(_ENCODER)
    if full not in _NAMES:
        raise ConfigError("not a parameter of a prefix", field=name, expected=", ".join(_NAMES))
    return full


def prefix_of(shapes: Mapping[str, tuple[int, ...]]) -> PrefixConfig:
    """Return the configuration that the shapes of a stored prefix tell, which has no dropout.

    Raises:
        ConfigError: there is no embedding, or a part of the projection is missing.
    """
    missing = [name for name in _NAMES if name not in shapes]
    if PREFIX_EMBEDDING in missing or len(missing) not in (0, len(PREFIX_PROJECTION)):
        raise ConfigError("a part of the prefix is missing", field=missing[0], expected=", ".join(_NAMES))
    projected = not missing
    return PrefixConfig(
        length=shapes[PREFIX_EMBEDDING][0],
        projection=projected,
        projection_size=shapes[PREFIX_PROJECTION[0]][0] if projected else None,
    )
