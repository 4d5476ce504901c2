"""Compare the parameters of a checkpoint with those of a network, and tell the network they imply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from glm3.domain.errors import ConfigError, ParameterMismatchError
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import (
    EMBEDDING,
    FINAL_NORM,
    is_model_parameter,
    layer_prefix,
    parameter_shapes,
)
from glm3.domain.tensors import TensorSpec

__all__ = [
    "ImpliedConfig",
    "ParameterDifferences",
    "compare_parameters",
    "compare_shapes",
    "contradictions",
    "implied_config",
    "require_fit",
    "require_shapes",
]

Shape = tuple[int, ...]

_LAYER = re.compile(r"transformer\.encoder\.layers\.(\d+)\.")
_INV_FREQ = "transformer.rotary_pos_emb.inv_freq"
_DISTINCT = ModelConfig(
    hidden_size=16,
    padded_vocab_size=96,
    ffn_hidden_size=24,
    num_attention_heads=3,
    kv_channels=4,
    multi_query_group_num=1,
    add_bias_linear=True,
)
"""A network in which no two sizes that are independent of each other are equal."""

_USUAL_KV_CHANNELS = 128  # every published ChatGLM3


@frozen
class ParameterDifferences:
    """How a checkpoint departs from a network; ``mis_shaped`` holds ``(name, expected, found)``."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mis_shaped: tuple[tuple[str, Shape, Shape], ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mis_shaped)


def compare_parameters(found: Mapping[str, Shape], config: ModelConfig) -> ParameterDifferences:
    """Compare shapes by Hugging Face name; what is no model parameter is never unexpected."""
    return compare_shapes(
        {name: found[name] for name in found if is_model_parameter(name)}, parameter_shapes(config)
    )


def compare_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> ParameterDifferences:
    """Compare named shapes with those that are expected."""
    return ParameterDifferences(
        missing=tuple(name for name in expected if name not in found),
        unexpected=tuple(name for name in found if name not in expected),
        mis_shaped=tuple(
            (name, shape, found[name]) for name, shape in expected.items() if found.get(name, shape) != shape
        ),
    )


def contradictions(found: Mapping[str, Shape]) -> list[tuple[str, Shape, Shape]]:
    """Return the parameters (by Hugging Face name) that fit no network in which the others are.

    Each comes with the shape that the parameters before it want, and with its own.
    """
    num_layers = 1 + max((int(layer[1]) for name in found if (layer := _LAYER.match(name))), default=0)
    placeholders = parameter_shapes(_DISTINCT.evolve(num_layers=num_layers))
    known = {name: sizes for name, sizes in placeholders.items() if len(found.get(name, ())) == len(sizes)}
    meaning: dict[int, int] = {}
    for name, sizes in known.items():
        for placeholder, size in zip(sizes, found[name], strict=True):
            meaning.setdefault(placeholder, size)
    if _DISTINCT.ffn_hidden_size in meaning:
        meaning[2 * _DISTINCT.ffn_hidden_size] = 2 * meaning[_DISTINCT.ffn_hidden_size]
    wanted = {name: tuple(meaning[size] for size in sizes) for name, sizes in known.items()}
    return [(name, shape, found[name]) for name, shape in wanted.items() if shape != found[name]]


def require_shapes(
    found: Mapping[str, Shape], expected: Mapping[str, Shape], path: Path | None = None
) -> None:
    """Check that parameters are exactly those that are expected, of the same shapes.

    Raises:
        ParameterMismatchError: listing every parameter that is missing, unexpected or of another shape.
    """
    differences = compare_shapes(found, expected)
    if differences:
        raise ParameterMismatchError(
            path=path,
            missing=differences.missing,
            unexpected=differences.unexpected,
            mis_shaped=differences.mis_shaped,
        )


def require_fit(found: Mapping[str, Shape], config: ModelConfig, path: Path | None = None) -> None:
    """Check that a checkpoint holds exactly the network's parameters, by Hugging Face name.

    Raises:
        ParameterMismatchError: listing every parameter that is missing, unexpected or of another shape.
    """
    differences = compare_parameters(found, config)
    if differences:
        raise ParameterMismatchError(
            path=path,
            missing=differences.missing,
            unexpected=differences.unexpected,
            mis_shaped=differences.mis_shaped,
            hint="compare the checkpoint with the configuration: glm3 inspect PATH",
        )


@frozen
class ImpliedConfig:
    """A configuration read off shapes: which fields they decide, and what had to be assumed."""

    config: ModelConfig
    derived: Mapping[str, Any]
    assumptions: tuple[str, ...]


def implied_config(specs: Mapping[str, TensorSpec], known: ModelConfig | None = None) -> ImpliedConfig | None:
    """Return the configuration that tensors (by Hugging Face name) imply, or None if they are no ChatGLM3.

    Shapes tell the product of heads and channels, not each: the channels come from the rotary
    frequencies if those are stored, else from ``known``, else they are assumed.
    """
    shapes = {name: spec.shape for name, spec in specs.items()}
    first = layer_prefix(0)
    matrices = [
        shapes.get(name, ())
        for name in (
            EMBEDDING,
            first + "self_attention.query_key_value.weight",
            first + "self_attention.dense.weight",
            first + "mlp.dense_4h_to_h.weight",
        )
    ]
    if not all(len(shape) == 2 for shape in matrices):
        return None
    (vocab, hidden), (qkv_size, _), (_, attention_size), (_, ffn) = matrices
    kv_size = (qkv_size - attention_size) // 2
    channels, assumptions = _kv_channels(shapes, attention_size, kv_size, known)
    if channels is None:
        return None
    heads, kv_heads = attention_size // channels, kv_size // channels
    derived = {
        "num_layers": 1 + max(int(found[1]) for name in shapes if (found := _LAYER.match(name))),
        "padded_vocab_size": vocab,
        "hidden_size": hidden,
        "ffn_hidden_size": ffn,
        "kv_channels": channels,
        "num_attention_heads": heads,
        "multi_query_group_num": kv_heads,
        "add_bias_linear": first + "self_attention.dense.bias" in shapes,
        "post_layer_norm": FINAL_NORM in shapes,
        "param_init_type": specs[EMBEDDING].dtype.value,
    }
    if not derived["add_bias_linear"]:  # else the bias is there in any case
        derived["add_qkv_bias"] = first + "self_attention.query_key_value.bias" in shapes
    try:
        config = ModelConfig.from_mapping(derived)
    except ConfigError:
        return None
    assumptions.append("seq_length, rope_ratio, layernorm_epsilon and the token ids are ChatGLM3-6B's")
    return ImpliedConfig(config, derived, tuple(assumptions))


def _kv_channels(
    shapes: Mapping[str, Shape], attention_size: int, kv_size: int, known: ModelConfig | None
) -> tuple[int | None, list[str]]:
    def divides(channels: int) -> bool:
        sizes = (attention_size, kv_size)
        return channels > 0 and channels % 4 == 0 and all(s > 0 and s % channels == 0 for s in sizes)

    frequencies = shapes.get(_INV_FREQ, ())
    if len(frequencies) == 1 and divides(4 * frequencies[0]):
        return 4 * frequencies[0], []  # half of the channels are rotated, two by two
    if known is not None and divides(known.kv_channels):
        return known.kv_channels, ["kv_channels is the configuration's; shapes do not tell it"]
    if divides(_USUAL_KV_CHANNELS):
        return _USUAL_KV_CHANNELS, [f"kv_channels is {_USUAL_KV_CHANNELS}, as in every published ChatGLM3"]
    if kv_size % 2 == 0 and divides(kv_size // 2):
        return kv_size // 2, ["there are two key and value heads, as in every published ChatGLM3"]
    return None, []
