"""Use case: convert weights, or an adapter between PEFT's folder and MindFormers' file."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from glm3.application.adapted_source import find_adapter
from glm3.application.adapter_file import adapter_file_at, read_adapter_file
from glm3.application.adapter_folder import (
    ADAPTER_CONFIG_NAME,
    StoredAdapter,
    config_bytes,
    write_adapter,
)
from glm3.application.checkpoint_stores import store_of_format
from glm3.application.conversion_target import require_target
from glm3.application.convert import ConversionRequest, ConversionResult, Progress, convert
from glm3.application.model_source import ModelSources
from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.errors import CheckpointError, UsageError
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.tensors import DType
from glm3.domain.training.run_state import spec_of

__all__ = ["convert_any"]

_FORMATS = ("hf", "ckpt", "safetensors")


def convert_any(
    request: ConversionRequest,
    sources: ModelSources,
    stores: Sequence[CheckpointStore],
    progress: Progress | None = None,
    *,
    alpha: float | None = None,
) -> ConversionResult:
    """Convert what lies at the source: an adapter alone as an adapter, anything else as weights.

    ``hf`` makes PEFT's folder of an adapter; ``ckpt`` and ``safetensors`` make a file with the names of the
    model card's library, and ``adapter_config.json`` beside it. ``alpha`` is how strong an adapter in a file
    is, where nothing beside it says so.

    Raises:
        ConfigError: nothing says how strong an adapter is.
        Glm3Error: see :func:`glm3.application.convert.convert`.
    """
    file = adapter_file_at(request.source)
    inside = None if file is None else read_adapter_file(file, stores)
    if inside is not None and inside.whole:  # nothing is folded in, so its strength does not matter
        return convert(request, stores, progress)
    adapter = find_adapter(request.source, sources, stores, alpha=alpha)
    if adapter is None:
        return convert(request, stores, progress)
    _require_plain(request)
    begun = time.monotonic()
    require_target(request.target, request.format, request.source, request.overwrite)
    if request.format == "hf":
        write_adapter(request.target, adapter.parameters, adapter.config, adapter.base, stores, step=0)
    else:
        _write_file(adapter, request, stores)
    _verify(adapter, request, sources, stores)
    return ConversionResult(
        source=request.source,
        target=request.target,
        source_format="an adapter",
        format=request.format,
        dtypes=((DType.FLOAT32, DType.FLOAT32),),
        nbytes=sum(array.nbytes for array in adapter.parameters.values()),
        tensors=len(adapter.parameters),
        seconds=time.monotonic() - begun,
        verified=request.verify,
        notes=(),
    )


def _require_plain(request: ConversionRequest) -> None:
    if request.format not in _FORMATS:
        raise UsageError(
            "no format for adapters", field="format", expected=", ".join(_FORMATS), found=request.format
        )
    if request.dtype is not None or request.check_files is not None or request.extra_files:
        raise UsageError(
            "only for the weights of a model",
            path=request.source,
            expected="an adapter in float32 without further files",
            hint="glm3 merge folds it into weights",
        )


def _write_file(
    adapter: StoredAdapter, request: ConversionRequest, stores: Sequence[CheckpointStore]
) -> None:
    beside = request.target.with_name(ADAPTER_CONFIG_NAME)
    if beside.exists() and not request.overwrite:
        raise UsageError("exists already", path=beside, hint="write into an empty folder, or overwrite")
    specs = [spec_of(name, array) for name, array in adapter.parameters.items()]
    with store_of_format(request.format, stores).create(request.target, specs) as writer:
        for name, array in adapter.parameters.items():
            writer.write(name, np.ascontiguousarray(array))
    with staged_file(beside) as place:
        write_durably(place, config_bytes(adapter.config, adapter.base))


def _verify(
    adapter: StoredAdapter,
    request: ConversionRequest,
    sources: ModelSources,
    stores: Sequence[CheckpointStore],
) -> None:
    if not request.verify:
        return
    written = find_adapter(request.target, sources, stores)
    wanted = {name: array.tobytes() for name, array in adapter.parameters.items()}
    if written is None or {name: array.tobytes() for name, array in written.parameters.items()} != wanted:
        raise CheckpointError(
            "reads back other than it was written",
            path=request.target,
            hint="the disk or the memory is faulty",
        )
