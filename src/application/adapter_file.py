"""Low-rank adapters as MindFormers keeps them: parameters of a ``.ckpt``, alone or beside the network's.

Such a file tells rank and modules by its shapes and names. How strong the adapter is, ``lora_alpha``, it does
not tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import frozen

from glm3.application.checkpoint_stores import CONFIG_NAME, find_store
from glm3.domain.parameters import EMBEDDING, from_mindspore_name
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.tensors import Array, to_float32
from glm3.domain.training.lora import (
    LoRAConfig,
    from_adapter_name,
    is_adapter_parameter,
    stored_adapter_config,
)

__all__ = ["AdapterFile", "adapter_file_at", "read_adapter_file"]

_SUFFIXES = (".ckpt", ".safetensors")


@frozen(eq=False, kw_only=True)
class AdapterFile:
    """The adapter in a file: float32, by the project's names. ``whole`` says that its network is there."""

    path: Path
    parameters: Mapping[str, Array]
    whole: bool

    def config(self, alpha: float) -> LoRAConfig:
        """Return what the parameters tell of an adapter of a known strength.

        Raises:
            ConfigError: they adapt what cannot be adapted, or differ in rank.
        """
        return stored_adapter_config({name: array.shape for name, array in self.parameters.items()}, alpha)


def adapter_file_at(path: Path) -> Path | None:
    """Return the file of weights that a path means in MindFormers' layout: itself, or a folder's only one."""
    if path.is_file():
        return path if path.suffix in _SUFFIXES else None
    if not path.is_dir() or (path / CONFIG_NAME).is_file():
        return None
    files = [file for file in path.iterdir() if file.suffix in _SUFFIXES]
    return files[0] if len(files) == 1 else None


def read_adapter_file(path: Path, stores: Sequence[CheckpointStore]) -> AdapterFile | None:
    """Read the adapter in a file, if one is there; the state of a training run beside it is left out.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with find_store(path, stores).open(path) as reader:
        parameters = {
            from_adapter_name(name): np.array(to_float32(reader.read(name), spec.dtype))
            for name, spec in reader.tensors.items()
            if is_adapter_parameter(name)
        }
        whole = any(from_mindspore_name(name) == EMBEDDING for name in reader.tensors)
    return AdapterFile(path=path, parameters=parameters, whole=whole) if parameters else None
