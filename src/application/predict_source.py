"""Where the model of a prediction lies, as the file of a run says it."""

from __future__ import annotations

from glm3.application.model_source import ModelSource, ModelSources, ReportProgress
from glm3.application.run_model import named_weights
from glm3.domain.errors import ConfigError
from glm3.domain.run_config import RunConfig

__all__ = ["predict_source"]


def predict_source(
    config: RunConfig, sources: ModelSources, progress: ReportProgress | None = None
) -> ModelSource:
    """Find the weights of a run, its network and its tokenizer; random weights answer nothing.

    Raises:
        ConfigError: the file names no weights.
        Glm3Error: see :meth:`ModelSources.resolve_run`.
    """
    key, name = named_weights(config)
    if name is None:
        raise ConfigError(
            "no weights are named",
            path=config.origin_of("").path,
            field=key,
            expected=f"a file, a folder, or one of {', '.join(sources.names())}",
        )
    return sources.resolve_run(config, progress=progress)
