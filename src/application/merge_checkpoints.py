"""Use case: make one checkpoint of the ranks' slices, or other slices, part by part.

Every target file is written on its own, from the parts of the source files that make it, a few megabytes at a
time. All of them lie in an unfinished folder until the last is done, and are then published together; what a
killed process has finished is checked and kept.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from attrs import frozen

from glm3.application.checkpoint_stores import find_store, store_of_format
from glm3.application.in_order import in_order
from glm3.application.merge_companions import copy_companions
from glm3.application.slice_checks import SliceCheck, check_slices
from glm3.application.slice_sources import SliceSources, open_slices
from glm3.application.slice_targets import Selection, choose_tensors, require_cover, target_specs
from glm3.domain.checksums import (
    crc32,
    drop_checksums,
    read_checksums,
    tensor_crc32,
    write_checksums,
)
from glm3.domain.errors import CheckpointError, Glm3Error, StorageError, UsageError
from glm3.domain.layout.boxes import Box
from glm3.domain.layout.strategy import COMPLETE, JobStrategy, Strategy
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.positional_io import require_free_bytes
from glm3.domain.rank_files import RankFiles, find_rank_files, rank_folder, ranks_text
from glm3.domain.resumable_folder import resumable_folder
from glm3.domain.tensors import Array, TensorSpec, row_slabs

__all__ = ["DEFAULT_PREFIX", "FORMATS", "MergeRequest", "MergeResult", "Progress", "merge_checkpoints"]

DEFAULT_PREFIX = "checkpoint_"
FORMATS = ("ckpt", "safetensors")

Progress = Callable[[int, int, str], None]
"""Told after every part: bytes done so far, bytes in all, the tensor's name."""


@frozen(kw_only=True)
class MergeRequest:
    """Which checkpoint to make of which.

    ``source`` holds folders ``rank_0``, ``rank_1``, ... with a file each, or is itself a complete checkpoint.
    Without ``source_strategy`` it is complete, without ``target_strategy`` the target is. The files written
    are ``target/rank_N/{prefix}N.ckpt``; beside a complete one go the configuration and the tokenizer that
    lie beside the source.
    """

    source: Path
    target: Path
    source_strategy: JobStrategy | None = None
    target_strategy: JobStrategy | None = None
    prefix: str = DEFAULT_PREFIX
    format: str = "ckpt"
    select: Selection = Selection.ALL
    verify: bool = False
    overwrite: bool = False


@frozen(kw_only=True)
class MergeResult:
    """What was done; ``kept`` are the ranks that an interrupted attempt had finished."""

    source: Path
    target: Path
    files: tuple[Path, ...]
    source_ranks: int
    position: tuple[int, int] | None
    tensors: int
    nbytes: int
    seconds: float
    check: SliceCheck
    kept: tuple[int, ...]


def merge_checkpoints(
    request: MergeRequest,
    stores: Sequence[CheckpointStore],
    progress: Progress | None = None,
    checking: Progress | None = None,
) -> MergeResult:
    """Merge or re-slice the checkpoint of a job; numbers keep their bits.

    ``checking`` is told how the checks before the first byte go on, ``progress`` what has been written.

    Raises:
        UsageError: the target exists already or lies inside the source, or format or prefix is impossible.
        MissingFileError: there is no such source.
        MultipleFaultsError: ranks that are missing, damaged, doubled or of another step, parameters that a
            strategy does not cover or does not fit; all that is wrong together.
        StorageError: the file system refused.
    """
    begun = time.monotonic()
    store = _require_sane(request, stores)
    found = _rank_files(request, stores)
    source = request.source_strategy or JobStrategy((Strategy({}, num_ranks=len(found.files)),))
    target = request.target_strategy or COMPLETE
    files = {
        rank: request.target / rank_folder(rank) / f"{request.prefix}{rank}.{request.format}"
        for rank in range(target.num_ranks)
    }
    _require_free(files.values(), request.overwrite)
    with open_slices(found.files, source, stores) as slices:
        require_cover(slices, source, target, request.source, request.select)
        names = choose_tensors(slices, request.select)
        specs = {rank: target_specs(slices, target, names, rank) for rank in files}
        check = check_slices(slices, names, checking)
        with resumable_folder(request.target, _task(request, found, specs)) as work:
            making = _Making(slices, target, store, progress, _total(specs), request.verify)
            kept = _make_all(making, files, specs, request.target, work)
            if target.num_ranks == 1:
                first = rank_folder(0)
                copy_companions(found.files[0], work / first, request.target / first)
    return MergeResult(
        source=request.source,
        target=request.target,
        files=tuple(files.values()),
        source_ranks=len(found.files),
        position=found.position,
        tensors=len(names),
        nbytes=_total(specs),
        seconds=time.monotonic() - begun,
        check=check,
        kept=kept,
    )


def _require_sane(request: MergeRequest, stores: Sequence[CheckpointStore]) -> CheckpointStore:
    if request.format not in FORMATS:
        raise UsageError(
            "no such format of a rank's file",
            field="format",
            expected=" or ".join(FORMATS),
            found=request.format,
        )
    if not request.prefix or Path(request.prefix).name != request.prefix:
        raise UsageError("must be the start of a file name", field="prefix", found=repr(request.prefix))
    target, source = request.target.resolve(), request.source.resolve()
    if target == source or source in target.parents:
        raise UsageError("the target lies inside the source", path=request.target)
    return store_of_format(request.format, stores)


def _rank_files(request: MergeRequest, stores: Sequence[CheckpointStore]) -> RankFiles:
    """Return the file of every rank; a complete checkpoint is that of rank 0."""
    strategy, source = request.source_strategy, request.source
    has_ranks = source.is_dir() and any(path.is_dir() for path in source.iterdir())
    if strategy is None and source.exists() and not has_ranks:
        find_store(source, stores)
        return RankFiles(source, {0: source}, None)
    return find_rank_files(source, None if strategy is None else strategy.num_ranks)


def _require_free(files: Iterable[Path], overwrite: bool) -> None:
    taken = [str(file) for file in files if file.exists()]
    if taken and not overwrite:
        raise UsageError(
            f"exists already: {', '.join(taken)}", hint="choose another folder or prefix, or ask to overwrite"
        )


def _total(specs: Mapping[int, Sequence[TensorSpec]]) -> int:
    return sum(spec.nbytes for some in specs.values() for spec in some)


def _task(request: MergeRequest, found: RankFiles, specs: Mapping[int, Sequence[TensorSpec]]) -> str:
    """Return what tells one merge from another: sources as they are now, and what is made of them."""
    sources = [
        (rank, str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        for rank, path in found.files.items()
    ]
    cut = hashlib.sha256(repr((request.source_strategy, request.target_strategy, specs)).encode()).hexdigest()
    return json.dumps({"sources": sources, "prefix": request.prefix, "format": request.format, "cut": cut})


@frozen
class _Making:
    """What the files of all target ranks have in common."""

    slices: SliceSources
    strategy: JobStrategy
    store: CheckpointStore
    progress: Progress | None
    total: int
    verify: bool

    def write(self, path: Path, rank: int, specs: Sequence[TensorSpec], done: int) -> None:
        """Write one rank's file, and its checksums beside it."""
        sums: dict[str, int] = {}
        drop_checksums(path)
        with self.store.create(path, specs) as writer:
            parts = [(spec, rows) for spec in specs for rows in row_slabs(spec)]
            arrays = in_order(partial(self.read, spec, rows, rank) for spec, rows in parts)
            for (spec, rows), array in zip(parts, arrays, strict=True):
                writer.write(spec.name, array, rows)
                sums[spec.name] = crc32(array, sums.get(spec.name, 0))
                done += array.nbytes
                if self.progress is not None:
                    self.progress(done, self.total, spec.name)
        write_checksums(path, sums)
        if self.verify and not self.is_finished(path, specs):
            raise CheckpointError(
                "reads back other than it was written",
                path=path,
                hint="the disk or the memory is faulty; nothing was published",
            )

    def read(self, spec: TensorSpec, rows: slice | None, rank: int) -> Array:
        """Return rows of what a target rank holds of a tensor."""
        box = self.strategy.slices(spec.name, self.slices.tensors[spec.name].shape, rank)
        assert box is not None  # noqa: S101  # the rank's specs are those it holds
        return self.slices.read(spec.name, box if rows is None else _rows_of(box, rows))

    def is_finished(self, path: Path, specs: Sequence[TensorSpec]) -> bool:
        """Tell whether an earlier attempt has written this file whole, by its checksums."""
        try:
            sums = read_checksums(path) if path.is_file() else None
            if sums is None or set(sums) != {spec.name for spec in specs}:
                return False
            with self.store.open(path) as reader:
                jobs = (partial(tensor_crc32, reader, name) for name in sums)
                return all(got == sums[name] for name, got in zip(sums, in_order(jobs), strict=True))
        except Glm3Error:
            return False


def _rows_of(box: Box, rows: slice) -> Box:
    start = box[0].start
    return (slice(start + rows.start, start + rows.stop), *box[1:])


def _make_all(
    making: _Making,
    files: Mapping[int, Path],
    specs: Mapping[int, Sequence[TensorSpec]],
    target: Path,
    work: Path,
) -> tuple[int, ...]:
    """Write what is not there yet; return the ranks that were."""
    places = {rank: work / file.relative_to(target) for rank, file in files.items()}
    kept = tuple(rank for rank, place in places.items() if making.is_finished(place, specs[rank]))
    rest = {rank: place for rank, place in places.items() if rank not in kept}
    needed = _total({rank: specs[rank] for rank in rest})
    require_free_bytes(target, needed, place=work, what=f"rank {ranks_text(rest)}")
    done = making.total - needed
    finished = list(kept)
    for rank, place in rest.items():
        try:
            making.write(place, rank, specs[rank], done)
        except StorageError as error:
            raise _interrupted(
                error, target, rank, [r for r in files if r not in finished], finished
            ) from error
        finished.append(rank)
        done += _total({rank: specs[rank]})
    return kept


def _interrupted(
    error: StorageError, target: Path, rank: int, open_ranks: Sequence[int], finished: Sequence[int]
) -> StorageError:
    kept = f"; rank {ranks_text(finished)} is kept for the next attempt" if finished else ""
    return StorageError(
        f"rank {rank}: {error.message}; not finished: rank {ranks_text(open_ranks)}",
        path=target,
        expected=error.expected,
        found=error.found,
        hint=f"{error.hint or 'choose another place'}{kept}",
    )
