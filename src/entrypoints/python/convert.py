"""Conversion of weights from Python."""

from __future__ import annotations

from pathlib import Path

from glm3.application.convert import ConversionRequest, ConversionResult, Progress
from glm3.application.convert_adapter import convert_any
from glm3.entrypoints.container import build_container
from glm3.entrypoints.model_folder import model_folder_files
from glm3.entrypoints.python.dtypes import floating_dtype

__all__ = ["convert"]


def convert(
    source: str | Path,
    target: str | Path,
    to: str,
    *,
    dtype: str | None = None,
    verify: bool = False,
    overwrite: bool = False,
    check_files: str | Path | None = None,
    model_folder: bool = False,
    lora_alpha: float | None = None,
    progress: Progress | None = None,
) -> ConversionResult:
    """Convert weights between ``hf``, ``ckpt``, ``safetensors`` and ``bin``, one tensor at a time.

    The target appears whole or not at all. Numbers keep their bits unless ``dtype`` changes them.

    An adapter becomes PEFT's folder (``hf``) or a file with the names of MindFormers; ``lora_alpha`` is how
    strong one in a file is, where nothing beside it says so.

    ``model_folder`` also writes a YAML and the tokenizer beside a ``.ckpt``: its folder can then be loaded.

    Raises:
        UsageError: the format or dtype is unknown, or the target exists and ``overwrite`` is off.
        CheckpointError: the source cannot be read.
        StorageError: the file system refused.
    """
    request = ConversionRequest(
        source=Path(source),
        target=Path(target),
        format=to,
        dtype=None if dtype is None else floating_dtype(dtype),
        verify=verify,
        overwrite=overwrite,
        check_files=None if check_files is None else Path(check_files),
        extra_files=model_folder_files(Path(source), Path(target), overwrite=overwrite)
        if model_folder
        else {},
    )
    parts = build_container()
    return convert_any(request, parts.sources(), parts.checkpoint_stores(), progress, alpha=lora_alpha)
