"""Adapters on disk: ``adapter_model.safetensors`` and ``adapter_config.json``, as PEFT calls the files.

A ``.ckpt`` of MindFormers may stand in the place of the first, with the model card's names inside.
Low-rank adapters carry PEFT's names inside, prefixes those of ChatGLM's own code. What that code saves of a
prefix is read too: ``config.json`` with ``pre_seq_len`` beside weights that are the prefix encoder's alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from glm3.application.adapter_config import adapter_config_from, adapter_config_of
from glm3.application.adapter_file import AdapterFile, read_adapter_file
from glm3.application.base_identity import BaseIdentity
from glm3.application.checkpoint_stores import CONFIG_NAME, find_store, store_of_format
from glm3.domain.atomic_write import staged_folder, write_durably
from glm3.domain.errors import BackendError, CheckpointError, ConfigError, MissingFileError
from glm3.domain.parameters import is_model_parameter
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.model import LanguageModel
from glm3.domain.ports.training import SupportsLoRA, SupportsPrefix
from glm3.domain.tensors import Array, to_float32
from glm3.domain.training.adapters import AdapterConfig
from glm3.domain.training.lora import from_adapter_name, to_peft_name
from glm3.domain.training.prefix import PrefixConfig, from_prefix_name, prefix_of
from glm3.domain.training.run_events import CheckpointSaved
from glm3.domain.training.run_state import spec_of

__all__ = [
    "ADAPTER_CONFIG_NAME",
    "StoredAdapter",
    "adapter_config_at",
    "add_adapter",
    "apply_adapter",
    "config_bytes",
    "is_adapter_folder",
    "read_adapter",
    "stored_in_file",
    "write_adapter",
]

ADAPTER_CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
_FILE_SUFFIX = ".ckpt"


@frozen(kw_only=True)
class StoredAdapter:
    """An adapter read from ``folder``; parameters are float32, by the project's names.

    ``network`` is the file that holds its base too, where one does.
    """

    folder: Path
    config: AdapterConfig
    base: BaseIdentity
    parameters: Mapping[str, Array]
    network: Path | None = None


def is_adapter_folder(path: Path, stores: Sequence[CheckpointStore]) -> bool:
    """Tell whether a folder holds an adapter, and not a model."""
    if (path / ADAPTER_CONFIG_NAME).is_file():
        return len(_weights_in(path)) <= 1
    return _holds_prefix_alone(path, stores)


def write_adapter(
    folder: Path,
    parameters: Mapping[str, Array],
    config: AdapterConfig,
    base: BaseIdentity,
    stores: Sequence[CheckpointStore],
    step: int,
) -> CheckpointSaved:
    """Publish an adapter as one folder, which may replace another.

    Raises:
        StorageError: the file system refused; what was in the place of the folder is still there.
    """
    begun = time.monotonic()
    store = store_of_format("safetensors", stores)
    prefix = isinstance(config, PrefixConfig)
    named = {
        name if prefix else to_peft_name(name): np.ascontiguousarray(array)
        for name, array in parameters.items()
    }
    specs = [spec_of(name, array) for name, array in named.items()]
    with staged_folder(folder, sum(spec.nbytes for spec in specs)) as made:
        with store.create(made / WEIGHTS_NAME, specs, {"format": "pt"}) as writer:
            for name, array in named.items():
                writer.write(name, array)
        write_durably(made / ADAPTER_CONFIG_NAME, config_bytes(config, base))
    nbytes = sum(spec.nbytes for spec in specs)
    return CheckpointSaved(step=step, path=folder, nbytes=nbytes, seconds=time.monotonic() - begun)


def config_bytes(config: AdapterConfig, base: BaseIdentity) -> bytes:
    """Return the content of ``adapter_config.json``."""
    text = json.dumps(adapter_config_of(config, base), ensure_ascii=False, indent=2)
    return f"{text}\n".encode()


def read_adapter(folder: Path, stores: Sequence[CheckpointStore]) -> StoredAdapter:
    """Read an adapter of ours, a low-rank one that PEFT saved, or a prefix that ChatGLM's own code saved.

    Raises:
        ConfigError: its configuration is damaged, or of another method; a parameter is not an adapter's.
        MissingFileError, CheckpointError: its weights cannot be read.
    """
    path = folder / ADAPTER_CONFIG_NAME
    if not path.is_file():
        return _read_prefix(folder, stores)
    config, base = adapter_config_at(path)
    weights = next(iter(_weights_in(folder)), folder / WEIGHTS_NAME)
    if isinstance(config, PrefixConfig) or weights.suffix != _FILE_SUFFIX:
        rename = from_prefix_name if isinstance(config, PrefixConfig) else from_adapter_name
        parameters = {rename(name): array for name, array in _arrays_in(weights, stores).items()}
        return StoredAdapter(folder=folder, config=config, base=base, parameters=parameters)
    found = read_adapter_file(weights, stores)
    if found is None:
        raise CheckpointError("holds no adapter", path=weights)
    return stored_in_file(found, config, base)


def adapter_config_at(path: Path) -> tuple[AdapterConfig, BaseIdentity]:
    """Read an ``adapter_config.json``.

    Raises:
        ConfigError: it is damaged, or of another method.
        MissingFileError: it is not there.
    """
    return adapter_config_from(_json_in(path), path)


def stored_in_file(found: AdapterFile, config: AdapterConfig, base: BaseIdentity) -> StoredAdapter:
    """Return the adapter in a file; its base is ``base`` unless it lies in the same file."""
    return StoredAdapter(
        folder=found.path,
        config=config,
        base=BaseIdentity(name=str(found.path.resolve())) if found.whole else base,
        parameters=found.parameters,
        network=found.path if found.whole else None,
    )


def add_adapter(model: LanguageModel, config: AdapterConfig, seed: int = 0) -> SupportsLoRA | SupportsPrefix:
    """Add a fresh adapter to a model and return the model.

    Raises:
        BackendError: the model's backend cannot.
    """
    if isinstance(config, PrefixConfig) and isinstance(model, SupportsPrefix):
        model.add_prefix(config, seed)
        return model
    if not isinstance(config, PrefixConfig) and isinstance(model, SupportsLoRA):
        model.add_lora(config, seed)
        return model
    raise BackendError("this backend cannot run such adapters", found=type(model).__name__)


def apply_adapter(model: LanguageModel, adapter: StoredAdapter) -> None:
    """Let a model answer with an adapter.

    Raises:
        BackendError: the model's backend cannot.
        ParameterMismatchError: the adapter is of another shape.
    """
    add_adapter(model, adapter.config).set_adapter_parameters(adapter.parameters)


def _weights_in(folder: Path) -> list[Path]:
    """Return the weights beside an ``adapter_config.json``: one file, or all checkpoints of a run."""
    usual = folder / WEIGHTS_NAME
    return [usual] if usual.is_file() else list(folder.glob(f"*{_FILE_SUFFIX}"))


def _read_prefix(folder: Path, stores: Sequence[CheckpointStore]) -> StoredAdapter:
    arrays = _arrays_in(folder, stores)
    parameters = {from_prefix_name(name): array for name, array in arrays.items()}
    base = _json_in(folder / CONFIG_NAME).get("_name_or_path") or None
    return StoredAdapter(
        folder=folder,
        config=prefix_of({name: array.shape for name, array in parameters.items()}),
        base=BaseIdentity(name=base if isinstance(base, str) else None),
        parameters=parameters,
    )


def _holds_prefix_alone(folder: Path, stores: Sequence[CheckpointStore]) -> bool:
    try:
        if not _json_in(folder / CONFIG_NAME).get("pre_seq_len"):
            return False
        with find_store(folder, stores).open(folder) as reader:
            names = {from_prefix_name(name) for name in reader.tensors}
    except (ConfigError, MissingFileError, CheckpointError):
        return False
    return bool(names)


def _arrays_in(weights: Path, stores: Sequence[CheckpointStore]) -> dict[str, Array]:
    with find_store(weights, stores).open(weights) as reader:
        return {
            name: np.array(to_float32(reader.read(name), spec.dtype))
            for name, spec in reader.tensors.items()
            if is_model_parameter(name)
        }


def _json_in(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError("no such file", path=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"not a configuration: {error}", path=path) from None
    if not isinstance(values, dict):
        raise ConfigError("not an adapter's configuration: it must be a JSON object", path=path)
    return values
