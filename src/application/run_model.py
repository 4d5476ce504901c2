"""What the file of a run says about its model: which weights, which tokenizer, how to use the network."""

from __future__ import annotations

from pathlib import Path

from glm3.domain.errors import ConfigError
from glm3.domain.model_config import ModelConfig
from glm3.domain.run_config import RunConfig
from glm3.domain.run_config.values import is_placeholder

__all__ = ["located", "merged_config", "named_weights", "vocabulary_of"]

SHAPE_FIELDS = (
    "num_layers",
    "padded_vocab_size",
    "hidden_size",
    "ffn_hidden_size",
    "kv_channels",
    "num_attention_heads",
    "multi_query_attention",
    "multi_query_group_num",
    "add_bias_linear",
    "add_qkv_bias",
    "post_layer_norm",
    "layernorm_epsilon",
    "rope_ratio",
)
"""What a network was trained with: weights that bring a configuration of their own know it better."""


def named_weights(run: RunConfig) -> tuple[str, str | None]:
    """Return the key that names a run's weights, and what it names."""
    if run.load_checkpoint:
        return "load_checkpoint", run.load_checkpoint
    return "model.model_config.checkpoint_name_or_path", run.model.model_config.checkpoint_name_or_path


def merged_config(run: RunConfig, own: ModelConfig) -> ModelConfig:
    """Return the network of weights that bring a configuration, as a run wants to use it."""
    merged = run.model.onto(own)
    return merged.evolve(
        seq_length=min(merged.seq_length, own.seq_length),
        **{name: getattr(own, name) for name in SHAPE_FIELDS},
    )


def vocabulary_of(run: RunConfig, path: Path | None) -> Path | None:
    """Return the tokenizer that a run's file names; a fill-me-in path names none.

    Raises:
        ConfigError: it is not there.
    """
    key = "processor.tokenizer.vocab_file"
    named = run.processor.tokenizer.vocab_file
    if named is None or is_placeholder(named):
        return None
    found = located(named, path)
    if found is None:
        line = run.origin_of(key).line
        raise ConfigError("no such file", path=path, line=line, field=key, found=named)
    return found


def located(named: str, beside: Path | None) -> Path | None:
    """Return the path that a name means, from here or from the file that says it, if it is there."""
    places = [Path(named)] if beside is None else [Path(named), beside.parent / named]
    return next((path for path in places if path.exists()), None)
