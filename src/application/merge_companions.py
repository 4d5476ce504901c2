"""What lies beside the slices of a model and makes a model of the merged weights."""

from __future__ import annotations

from pathlib import Path

from glm3.application.checkpoint_stores import CONFIG_NAME
from glm3.application.conversion_target import COMPANION_FILES
from glm3.domain.atomic_write import staged_file, write_durably

__all__ = ["companion_files", "copy_companions"]

_YAML_SUFFIXES = (".yaml", ".yml")


def companion_files(weights: Path) -> list[Path]:
    """Return the configuration, the tokenizer and the like beside a file of weights."""
    folder = weights.parent if weights.is_file() else weights
    named = [folder / name for name in (CONFIG_NAME, *COMPANION_FILES)]
    files = [path for path in named if path.is_file()]
    yamls = [path for path in folder.iterdir() if path.suffix in _YAML_SUFFIXES and path.is_file()]
    return [*files, *(yamls if len(yamls) == 1 else [])]


def copy_companions(weights: Path, folder: Path, published: Path) -> None:
    """Copy them into ``folder``, except those that ``published`` has, where its files will be.

    Raises:
        StorageError: the file system refused.
    """
    for path in companion_files(weights):
        if not (published / path.name).exists():
            with staged_file(folder / path.name) as place:
                write_durably(place, path.read_bytes())
