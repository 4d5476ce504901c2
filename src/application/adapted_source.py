"""Use case: find a model, or the base of an adapter together with the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from glm3.application.adapter_folder import StoredAdapter, is_adapter_folder, read_adapter
from glm3.application.model_source import ModelSource, ModelSources, ReportProgress
from glm3.domain.errors import ConfigError
from glm3.domain.ports.checkpoint_store import CheckpointStore

__all__ = ["adapted_source", "base_name"]


def adapted_source(
    name_or_path: str | Path,
    sources: ModelSources,
    stores: Sequence[CheckpointStore],
    *,
    adapter: str | Path | None = None,
    with_weights: bool = True,
    progress: ReportProgress | None = None,
) -> ModelSource:
    """Find a model by name, folder or file; the folder of an adapter means its base with it.

    With ``adapter``, ``name_or_path`` is the base, whatever the adapter's folder says of it.

    Raises:
        ConfigError: an adapter does not say what it adapts, or is damaged.
        CheckpointError: the adapter was trained on other weights.
        Glm3Error: see :meth:`ModelSources.resolve`.
    """
    folder = Path(name_or_path if adapter is None else adapter)
    if adapter is None and not is_adapter_folder(folder, stores):
        return sources.resolve(name_or_path, with_weights=with_weights, progress=progress)
    stored = read_adapter(folder, stores)
    base = str(name_or_path) if adapter is not None else base_name(stored, sources)
    source = sources.resolve(base, with_weights=with_weights, progress=progress)
    if with_weights:
        stored.base.require(source.weights, folder)
    return evolve(source, adapter=stored)


def base_name(adapter: StoredAdapter, sources: ModelSources, otherwise: str | None = None) -> str:
    """Return the name or path of the weights an adapter was trained on, if they can be found.

    ``otherwise`` stands in where the folder does not know them by a hash and what it says is not here.

    Raises:
        ConfigError: the folder does not say it, or names what is not here.
    """
    name = adapter.base.name
    if name is None or not (name.removeprefix("mindspore/") in sources.names() or Path(name).exists()):
        if otherwise is not None and adapter.base.sha256 is None:
            return otherwise
        raise ConfigError(
            "does not say what it adapts" if name is None else "what it adapts is not here",
            path=adapter.folder,
            field="base_model_name_or_path",
            expected="the name or path of the base model",
            found=name,
            hint="name the base yourself: glm3 chat -m BASE --adapter FOLDER",
        )
    return name
