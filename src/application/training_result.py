"""Leave a model folder that can be chatted with as soon as a run has ended."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from glm3.application.checkpoint_stores import CONFIG_NAME, store_of_format
from glm3.application.model_source import TOKENIZER_NAME
from glm3.domain.atomic_write import publish, staging_folder, write_durably
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.tensors import Array
from glm3.domain.training.run_events import CheckpointSaved
from glm3.domain.training.run_state import spec_of

__all__ = ["hugging_face_files", "take_part", "write_model_folder"]


def hugging_face_files(config: ModelConfig, tokenizer: Path | None) -> dict[str, bytes]:
    """Return what lies beside the weights in Hugging Face's layout, by name."""
    text = json.dumps(config.to_hugging_face(), ensure_ascii=False, indent=2)
    files = {CONFIG_NAME: f"{text}\n".encode()}
    return files if tokenizer is None else files | {TOKENIZER_NAME: tokenizer.read_bytes()}


def write_model_folder(
    folder: Path,
    parameters: Mapping[str, Array],
    companions: Mapping[str, bytes],
    stores: Sequence[CheckpointStore],
    step: int,
) -> CheckpointSaved:
    """Publish weights (by Hugging Face name) and their companions as one folder, which may replace another.

    Raises:
        StorageError: the file system refused; what was in the place of the folder is still there.
    """
    begun = time.monotonic()
    store = store_of_format("safetensors", stores)
    specs = [spec_of(name, array) for name, array in parameters.items()]
    nbytes = sum(spec.nbytes for spec in specs)
    with staging_folder(folder, nbytes) as work:
        made = work / folder.name
        with store.create(made, specs, {"format": "pt"}) as writer:
            for name, array in parameters.items():
                writer.write(name, np.ascontiguousarray(array))
        for name, content in companions.items():
            write_durably(made / name, content)
        publish(made, folder)
    return CheckpointSaved(step=step, path=folder, nbytes=nbytes, seconds=time.monotonic() - begun)


def take_part(parameters: Mapping[str, Array]) -> None:
    """Look parameters up as :func:`write_model_folder` does on another rank, where all make them together."""
    for _ in ("what they are", "what they hold"):
        for name in parameters:
            parameters[name]
