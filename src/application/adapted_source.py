"""Use case: find a model, or the base of an adapter together with the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from glm3.application.adapter_file import adapter_file_at, read_adapter_file
from glm3.application.adapter_folder import (
    ADAPTER_CONFIG_NAME,
    StoredAdapter,
    adapter_config_at,
    is_adapter_folder,
    read_adapter,
    stored_in_file,
)
from glm3.application.base_identity import BaseIdentity
from glm3.application.model_source import ModelSource, ModelSources, ReportProgress
from glm3.domain.errors import ConfigError, MissingFileError
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.training.lora import LoRAConfig

__all__ = ["adapted_source", "base_name", "find_adapter", "require_adapter"]


def adapted_source(
    name_or_path: str | Path,
    sources: ModelSources,
    stores: Sequence[CheckpointStore],
    *,
    adapter: str | Path | None = None,
    with_weights: bool = True,
    progress: ReportProgress | None = None,
) -> ModelSource:
    """Find a model by name, folder or file; the folder or file of an adapter means its base with it.

    With ``adapter``, ``name_or_path`` is the base, whatever the adapter's folder says of it.

    Raises:
        ConfigError: an adapter does not say what it adapts, or is damaged.
        CheckpointError: the adapter was trained on other weights.
        Glm3Error: see :meth:`ModelSources.resolve`.
    """
    folder = Path(name_or_path if adapter is None else adapter)
    find = find_adapter if adapter is None else require_adapter
    stored = find(folder, sources, stores)
    if stored is None:
        return sources.resolve(name_or_path, with_weights=with_weights, progress=progress)
    base = str(name_or_path) if adapter is not None else base_name(stored, sources)
    source = sources.resolve(base, with_weights=with_weights, progress=progress)
    if with_weights:
        stored.base.require(source.weights, folder)
    return evolve(source, adapter=stored)


def find_adapter(
    path: Path, sources: ModelSources, stores: Sequence[CheckpointStore], *, alpha: float | None = None
) -> StoredAdapter | None:
    """Return the adapter at a place: in a folder of its own, or in a file as MindFormers keeps it, if any.

    What a file does not tell is ``alpha``, or else in the ``adapter_config.json`` or the YAML beside it.

    Raises:
        ConfigError: the adapter is damaged, or nothing says how strong it is.
        CheckpointError: its weights cannot be read.
    """
    if is_adapter_folder(path, stores):
        return read_adapter(path, stores)
    file = adapter_file_at(path)
    found = None if file is None else read_adapter_file(file, stores)
    if found is None:
        return None
    beside, base = found.path.with_name(ADAPTER_CONFIG_NAME), BaseIdentity(name=None)
    if beside.is_file():
        config, base = adapter_config_at(beside)
        if isinstance(config, LoRAConfig) and alpha is None:
            alpha = config.alpha
    elif (run := sources.run_beside(found.path)) is not None:
        base = BaseIdentity(name=run.model.model_config.checkpoint_name_or_path)
        if run.model.pet_config is not None and alpha is None:
            alpha = run.model.pet_config.lora_alpha
    if alpha is None:
        raise ConfigError(
            "does not say how strong the adapter in it is",
            path=found.path,
            field="lora_alpha",
            expected=f"{ADAPTER_CONFIG_NAME}, or a YAML with model.model_config.pet_config, beside it",
            hint="make a folder of it: glm3 convert FILE FOLDER --to hf --lora-alpha NUMBER",
        )
    return stored_in_file(found, found.config(alpha), base)


def require_adapter(
    path: Path, sources: ModelSources, stores: Sequence[CheckpointStore], *, alpha: float | None = None
) -> StoredAdapter:
    """Return the adapter at a place, as :func:`find_adapter` does.

    Raises:
        MissingFileError: there is none.
        Glm3Error: see :func:`find_adapter`.
    """
    found = find_adapter(path, sources, stores, alpha=alpha)
    if found is None:
        raise MissingFileError(
            "holds no adapter", path=path, expected="the folder of an adapter, or a .ckpt with one in it"
        )
    return found


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
