"""Where the model of a prediction lies, as the file of a run says it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from glm3.application.adapted_source import base_name, find_adapter
from glm3.application.auto_transform import AutoTransform
from glm3.application.model_source import ModelSource, ModelSources, ReportProgress
from glm3.application.rank_agreement import RankAgreement
from glm3.application.run_model import named_weights
from glm3.domain.errors import ConfigError
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.strategy_store import StrategyStore
from glm3.domain.run_config import RunConfig

__all__ = ["predict_source"]


def predict_source(
    config: RunConfig,
    sources: ModelSources,
    stores: Sequence[CheckpointStore],
    strategies: StrategyStore,
    progress: ReportProgress | None = None,
    communicator: Communicator | None = None,
) -> ModelSource:
    """Find the weights of a run, its network, its tokenizer and its adapter; random weights answer nothing.

    The folder or file of an adapter means its base with it. The slices of many ranks are merged first: where
    several ranks answer, by the first of them.

    Raises:
        ConfigError: the file names no weights, an adapter whose base is not known, or slices that
            ``auto_trans_ckpt`` does not allow to merge.
        CheckpointError: an adapter was trained on other weights.
        Glm3Error: see :meth:`ModelSources.resolve_run`.
    """
    agreement = None if communicator is None else RankAgreement(communicator)
    transform = AutoTransform(stores=stores, strategies=strategies, agreement=agreement)
    config = transform.apply(config, 0 if communicator is None else communicator.rank)
    key, name = named_weights(config)
    if name is None:
        raise ConfigError(
            "no weights are named",
            path=config.origin_of("").path,
            field=key,
            expected=f"a file, a folder, or one of {', '.join(sources.names())}",
        )
    folder = Path(name)
    keys = config.model.pet_config
    adapter = find_adapter(folder, sources, stores, alpha=None if keys is None else keys.lora_alpha)
    if adapter is None:
        return sources.resolve_run(config, progress=progress)
    named = config.model.model_config.checkpoint_name_or_path
    based = evolve(config, load_checkpoint=base_name(adapter, sources, named))
    source = sources.resolve_run(based, progress=progress)
    adapter.base.require(source.weights, folder)
    return evolve(source, adapter=adapter)
