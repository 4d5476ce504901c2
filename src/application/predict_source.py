"""Where the model of a prediction lies, as the file of a run says it."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from glm3.application.checkpoint_stores import config_beside
from glm3.application.model_source import TOKENIZER_NAME, ModelSource, ModelSources, ReportProgress
from glm3.domain.errors import ConfigError, MissingFileError
from glm3.domain.model_config import ModelConfig
from glm3.domain.run_config import RunConfig
from glm3.domain.run_config.values import is_placeholder

__all__ = ["predict_source"]

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


def predict_source(
    config: RunConfig, sources: ModelSources, progress: ReportProgress | None = None
) -> ModelSource:
    """Find the weights of a run, its network and its tokenizer.

    Weights are ``load_checkpoint``, or else ``model_config.checkpoint_name_or_path``. The file of the run
    decides lengths and generation; the shape is the weights' own where they bring one.

    Raises:
        ConfigError: the file names no weights, or a tokenizer that is not there.
        MissingFileError, UsageError: there are no such weights.
        DownloadError: a file of a known model is missing and cannot be fetched.
    """
    key = "load_checkpoint" if config.load_checkpoint else "model.model_config.checkpoint_name_or_path"
    name = config.load_checkpoint or config.model.model_config.checkpoint_name_or_path
    if name is None:
        raise ConfigError(
            "no weights are named",
            path=config.origin_of("").path,
            field=key,
            expected=f"a file, a folder, or one of {', '.join(sources.names())}",
        )
    vocabulary = _vocabulary(config)
    path = Path(name)
    if path.is_file():
        beside = path.with_name(TOKENIZER_NAME)
        own = config_beside(path)
        source = ModelSource(
            name=path.stem,
            config=own or config.model.model_config,
            weights=path,
            tokenizer=beside if beside.is_file() else None,
        )
    else:
        own = None
        source = sources.resolve(name, with_tokenizer=vocabulary is None, progress=progress)
    return evolve(
        source, config=_merged(config, own or source.config), tokenizer=vocabulary or source.tokenizer
    )


def _merged(config: RunConfig, own: ModelConfig) -> ModelConfig:
    merged = config.model.onto(own)
    return merged.evolve(
        seq_length=min(merged.seq_length, own.seq_length),
        **{name: getattr(own, name) for name in SHAPE_FIELDS},
    )


def _vocabulary(config: RunConfig) -> Path | None:
    """Return the tokenizer that the file names; a fill-me-in path names none."""
    named = config.processor.tokenizer.vocab_file
    if named is None or is_placeholder(named):
        return None
    if not Path(named).is_file():
        raise MissingFileError(
            "no such tokenizer",
            path=named,
            hint="processor.tokenizer.vocab_file of the configuration names it",
        )
    return Path(named)
