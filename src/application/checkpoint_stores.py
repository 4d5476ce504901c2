"""Choose the store that reads a path, and find what lies beside its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from glm3.domain.atomic_write import WEIGHT_SUFFIXES
from glm3.domain.errors import CheckpointError, ConfigError, MissingFileError, UsageError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.checkpoint_store import CheckpointStore

__all__ = [
    "CONFIG_NAME",
    "config_beside",
    "find_store",
    "folder_of",
    "hint_for_other_files",
    "store_of_format",
]

CONFIG_NAME = "config.json"


def find_store(path: Path, stores: Sequence[CheckpointStore]) -> CheckpointStore:
    """Return the first store that recognises ``path``.

    Raises:
        MissingFileError: the path does not exist.
        CheckpointError: no store knows what it holds.
    """
    for store in stores:
        if store.recognises(path):
            return store
    if not path.exists():
        raise MissingFileError("no such file or folder", path=path)
    formats = ", ".join(store.format for store in stores)
    raise CheckpointError(
        "holds no checkpoint of a known format",
        path=path,
        expected=f"*{', *'.join(WEIGHT_SUFFIXES)} or an index of shards ({formats})",
        found="a folder of other things" if path.is_dir() else f"a file named {path.name}",
        hint=hint_for_other_files(path),
    )


def hint_for_other_files(path: Path) -> str:
    """Say what to name instead of a path that holds no weights that can be read."""
    if path.suffix == ".gguf":
        return "a .gguf is written and never read: name the folder or file of weights that it was made from"
    return "name the folder or file that holds the weights"


def store_of_format(name: str, stores: Sequence[CheckpointStore]) -> CheckpointStore:
    """Return the store of one format.

    Raises:
        UsageError: there is none.
    """
    for store in stores:
        if store.format == name:
            return store
    raise UsageError(
        "no such format", field="format", expected=", ".join(s.format for s in stores), found=name
    )


def folder_of(path: Path) -> Path:
    """Return the folder that holds a checkpoint's companions: the path itself, or a file's parent."""
    return path if path.is_dir() else path.parent


def config_beside(path: Path) -> ModelConfig | None:
    """Read the ``config.json`` beside a checkpoint's weights, if there is one.

    Raises:
        ConfigError: it is not valid.
    """
    file = folder_of(path) / CONFIG_NAME
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"is not valid JSON: {error}", path=file) from None
    if not isinstance(values, dict):
        raise ConfigError("must be a JSON object", path=file)
    return ModelConfig.from_mapping(values, file)
