"""The parameters of a ChatGLM3 network: their names in each world, and their shapes.

This is the one place that knows them. Inside the project a parameter carries its Hugging Face name;
MindSpore checkpoints rename the embedding only, and nothing is split, joined or transposed.
Source: the published weight index, and MindFormers' conversion of glm2 and glm3.
"""

from __future__ import annotations

from collections.abc import Iterator

from glm3.domain.model_config import ModelConfig

__all__ = [
    "EMBEDDING",
    "FINAL_NORM",
    "IGNORED_SUFFIXES",
    "OPTIMIZER_PREFIXES",
    "OUTPUT_LAYER",
    "from_mindspore_name",
    "is_model_parameter",
    "layer_prefix",
    "parameter_shapes",
    "to_mindspore_name",
]

EMBEDDING = "transformer.embedding.word_embeddings.weight"
FINAL_NORM = "transformer.encoder.final_layernorm.weight"
OUTPUT_LAYER = "transformer.output_layer.weight"

_MINDSPORE_EMBEDDING = "transformer.embedding.embedding_table"
_LATER_MINDSPORE_EMBEDDING = "transformer.embedding.embedding_weight"  # MindFormers 1.3 and later

IGNORED_SUFFIXES = ("rotary_pos_emb.inv_freq",)
"""Carried by published checkpoints, recomputed by every network, ignored on load."""

OPTIMIZER_PREFIXES = ("adam_m.", "adam_v.", "master.")
"""What stands before a parameter's name in the names of its optimizer states and of its float32 copy."""

_TRAINING_SCALARS = ("epoch_num", "step_num", "global_step", "loss_scale", "step", "good_steps")


def layer_prefix(layer: int) -> str:
    """Return the start of the names of one transformer block."""
    return f"transformer.encoder.layers.{layer}."


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every trainable parameter's shape by Hugging Face name, in network order.

    Linear weights are ``(out, in)``; query, key and value are rows of one matrix, as are the two halves
    of SwiGLU's input.
    """
    return dict(_parameters(config))


def _parameters(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, ffn = config.hidden_size, config.ffn_hidden_size
    yield EMBEDDING, (config.padded_vocab_size, hidden)
    for layer in range(config.num_layers):
        prefix = layer_prefix(layer)
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "self_attention.query_key_value.weight", (config.qkv_size, hidden)
        if config.add_qkv_bias or config.add_bias_linear:
            yield prefix + "self_attention.query_key_value.bias", (config.qkv_size,)
        yield prefix + "self_attention.dense.weight", (hidden, config.attention_size)
        if config.add_bias_linear:
            yield prefix + "self_attention.dense.bias", (hidden,)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.dense_h_to_4h.weight", (2 * ffn, hidden)
        if config.add_bias_linear:
            yield prefix + "mlp.dense_h_to_4h.bias", (2 * ffn,)
        yield prefix + "mlp.dense_4h_to_h.weight", (hidden, ffn)
        if config.add_bias_linear:
            yield prefix + "mlp.dense_4h_to_h.bias", (hidden,)
    if config.post_layer_norm:
        yield FINAL_NORM, (hidden,)
    yield OUTPUT_LAYER, (config.padded_vocab_size, hidden)


def is_model_parameter(name: str) -> bool:
    """Tell weights from what else checkpoints carry: recomputed tables, and the state of a training run."""
    return not (
        name.endswith(IGNORED_SUFFIXES) or name.startswith(OPTIMIZER_PREFIXES) or name in _TRAINING_SCALARS
    )


def to_mindspore_name(name: str) -> str:
    """Return a parameter's name in a MindSpore checkpoint."""
    return _MINDSPORE_EMBEDDING if name == EMBEDDING else name


def from_mindspore_name(name: str) -> str:
    """Return a parameter's Hugging Face name; names of optimizer states and the like pass unchanged."""
    return EMBEDDING if name in (_MINDSPORE_EMBEDDING, _LATER_MINDSPORE_EMBEDDING) else name
