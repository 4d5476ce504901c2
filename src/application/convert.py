"""Convert a checkpoint from any format to any other, tensor by tensor.

The source is read and the target written in slabs of rows, so that memory stays at a few slabs whatever
the size. The target appears whole, with its companions, or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from glm3.application.check_files import render_check_files
from glm3.application.checkpoint_stores import config_beside, find_store, store_of_format
from glm3.application.conversion_target import Target, companions, require_target
from glm3.domain.atomic_write import publish, staged_file, staging_folder, write_durably
from glm3.domain.errors import CheckpointError, ParameterMismatchError
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameter_check import compare_parameters
from glm3.domain.parameters import from_mindspore_name
from glm3.domain.ports.checkpoint_store import CheckpointReader, CheckpointStore
from glm3.domain.quantization.rounded_checkpoint import refuse_rounded
from glm3.domain.recast import recast
from glm3.domain.tensors import Array, DType, TensorSpec, row_slabs

__all__ = ["ConversionRequest", "ConversionResult", "Progress", "convert"]

_SLAB_BYTES = 32 << 20

Progress = Callable[[int, int, str], None]
"""Told after every slab: bytes read so far, bytes in all, the tensor's name."""


@frozen(kw_only=True)
class ConversionRequest:
    """What to convert to what.

    ``format`` is ``hf`` (a folder of safetensors shards with config.json), ``safetensors`` (one file that
    MindSpore loads), ``ckpt`` or ``bin``. ``dtype`` changes floating tensors only. ``config`` replaces
    the config.json beside the source. ``extra_files`` (content by name) go into a folder target, or beside
    a file. ``check_files`` is a folder for the model card's ``pt_ckpt.txt`` and ``check_pt_ckpt.txt``.
    """

    source: Path
    target: Path
    format: str
    dtype: DType | None = None
    verify: bool = False
    overwrite: bool = False
    check_files: Path | None = None
    config: ModelConfig | None = None
    extra_files: Mapping[str, bytes] = field(factory=dict)


@frozen(kw_only=True)
class ConversionResult:
    """What was done. ``dtypes`` holds the dtype pairs that occurred; ``notes`` are for the user to read."""

    source: Path
    target: Path
    source_format: str
    format: str
    dtypes: tuple[tuple[DType, DType], ...]
    nbytes: int
    tensors: int
    seconds: float
    verified: bool
    notes: tuple[str, ...]


@frozen
class _Move:
    """One tensor's way."""

    source: TensorSpec
    target: TensorSpec

    def read(self, reader: CheckpointReader, rows: slice | None) -> Array:
        """Return a slab in the target's dtype."""
        array = reader.read(self.source.name, rows)
        return recast(array, self.source.dtype, self.target.dtype, self.source.name)


def convert(
    request: ConversionRequest, stores: Sequence[CheckpointStore], progress: Progress | None = None
) -> ConversionResult:
    """Convert a checkpoint and publish it atomically; numbers keep their bits where the dtype stays.

    Raises:
        UsageError: the format is unknown, or the target does not suit it or exists already.
        MissingFileError: the source or a part of it does not exist.
        CheckpointError: the source cannot be read, or the target did not verify.
        ConfigError: its weights are rounded.
        ParameterMismatchError: the source lacks parameters of its config.json, or has them in other shapes.
        InvalidInputError: a number does not fit the new dtype.
        StorageError: the file system refused.
    """
    begun = time.monotonic()
    target = require_target(request.target, request.format, request.source, request.overwrite)
    source_store = find_store(request.source, stores)
    target_store = store_of_format(target.store, stores)
    config = request.config or config_beside(request.source)
    notes: list[str] = []
    with source_store.open(request.source) as reader:
        moves = [_move(spec, target, request.dtype) for spec in reader.tensors.values()]
        specs = [move.target for move in moves]
        if config is None or config.quantization_bit == 0:
            refuse_rounded(reader, "converted")
        if config is not None:
            _require_parameters(moves, config, request.source)
        files = dict(request.extra_files)
        if target.is_folder:
            files = {**companions(request.source, config, request.dtype, specs, notes), **files}
        with staging_folder(request.target, sum(spec.nbytes for spec in specs)) as work:
            made = work / request.target.name
            with target_store.create(made, specs, target.metadata(reader.metadata)) as writer:
                for move, rows in _walk(moves, progress):
                    writer.write(move.target.name, move.read(reader, rows), rows)
            if request.verify:
                _verify(moves, reader, target_store, made, request.target)
            _publish(work, request.target, files)
    if request.check_files is not None:
        for name, text in render_check_files([move.source for move in moves]).items():
            with staged_file(request.check_files / name) as file:
                write_durably(file, text.encode())
    return ConversionResult(
        source=request.source,
        target=request.target,
        source_format=source_store.format,
        format=request.format,
        dtypes=tuple(dict.fromkeys((move.source.dtype, move.target.dtype) for move in moves)),
        nbytes=sum(spec.nbytes for spec in specs),
        tensors=len(moves),
        seconds=time.monotonic() - begun,
        verified=request.verify,
        notes=tuple(notes),
    )


def _move(spec: TensorSpec, target: Target, dtype: DType | None) -> _Move:
    new_dtype = dtype if dtype is not None and spec.dtype.is_floating else spec.dtype
    return _Move(spec, TensorSpec(target.name(spec.name), new_dtype, spec.shape))


def _require_parameters(moves: Sequence[_Move], config: ModelConfig, path: Path) -> None:
    """Refuse weights that are not whole; what is there besides (optimizer states, adapters) comes along."""
    found = {from_mindspore_name(move.source.name): move.source.shape for move in moves}
    differences = compare_parameters(found, config)
    if config.quantization_bit == 0 and (differences.missing or differences.mis_shaped):
        raise ParameterMismatchError(
            path=path,
            missing=differences.missing,
            mis_shaped=differences.mis_shaped,
            hint="the weights are not whole, or the config.json beside them is another model's",
        )


def _walk(moves: Sequence[_Move], progress: Progress | None) -> Iterator[tuple[_Move, slice | None]]:
    """Yield every slab of every tensor, and report each when it has been dealt with."""
    done, total = 0, sum(move.source.nbytes for move in moves)
    for move in moves:
        for rows in row_slabs(move.source, _SLAB_BYTES):
            yield move, rows
            length = move.source.shape[0] if rows else 1
            done += move.source.nbytes * (rows.stop - rows.start if rows else 1) // max(1, length)
            if progress is not None:
                progress(done, total, move.source.name)


def _verify(
    moves: Sequence[_Move], source: CheckpointReader, store: CheckpointStore, made: Path, target: Path
) -> None:
    """Read what was written and compare it bit by bit with what should have been."""
    with store.open(made) as written:
        for move, rows in _walk(moves, None):
            want, got = move.read(source, rows), written.read(move.target.name, rows)
            if want.tobytes() != got.tobytes():
                raise CheckpointError(
                    "reads back other than it was written",
                    path=target,
                    field=move.target.name,
                    hint="the disk or the memory is faulty; nothing was published",
                )


def _publish(work: Path, target: Path, files: Mapping[str, bytes]) -> None:
    """Publish a folder with its companions as one, or a file and then its companions beside it."""
    made = work / target.name
    home = made if made.is_dir() else work
    for name, content in files.items():
        write_durably(home / name, content)
    publish(made, target)
    if home is work:
        for name in files:
            publish(work / name, target.parent / name)
