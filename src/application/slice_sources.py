"""The slices of a checkpoint as one: complete tensors, of which any part can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from attrs import frozen

from glm3.application.checkpoint_stores import find_store
from glm3.domain.errors import CheckpointError, Glm3Error, MultipleFaultsError
from glm3.domain.layout.boxes import Box, box_shape
from glm3.domain.layout.plan import pieces_of
from glm3.domain.layout.strategy import JobStrategy
from glm3.domain.parameters import OPTIMIZER_PREFIXES, is_model_parameter, to_mindspore_name
from glm3.domain.ports.checkpoint_store import CheckpointReader, CheckpointStore
from glm3.domain.positional_io import allow_open_files
from glm3.domain.rank_files import ranks_text
from glm3.domain.tensors import Array, TensorSpec

__all__ = ["SliceSources", "open_slices", "uncovered"]


@frozen(eq=False)
class SliceSources:
    """Open files of all ranks.

    ``tensors`` are the complete ones, named as in MindSpore's checkpoints; ``stored`` is what each is called
    in the files.
    """

    strategy: JobStrategy
    paths: Mapping[int, Path]
    readers: Mapping[int, CheckpointReader]
    tensors: Mapping[str, TensorSpec]
    stored: Mapping[str, str]

    def read(self, name: str, box: Box) -> Array:
        """Return a part of a complete tensor; nothing outside of its rows is read.

        Raises:
            CheckpointError: a file was cut since it was opened.
        """
        spec = self.tensors[name]
        pieces = pieces_of(self.strategy, name, spec.shape, box)
        if len(pieces) == 1:
            return self.read_slice(pieces[0].rank, name, pieces[0].source)
        array = np.empty(box_shape(box), spec.dtype.carrier)
        for piece in pieces:
            array[piece.target] = self.read_slice(piece.rank, name, piece.source)
        return array

    def read_slice(self, rank: int, name: str, box: Box | None = None) -> Array:
        """Return what one rank holds of a tensor, or the part ``box`` of it, as a contiguous array."""
        reader, stored = self.readers[rank], self.stored[name]
        shape = reader.tensors[stored].shape
        if not box or box_shape(box) == shape:
            return reader.read(stored)
        rows = reader.read(stored, box[0])
        return np.ascontiguousarray(rows[(slice(None), *box[1:])])

    def slice_spec(self, rank: int, name: str) -> TensorSpec:
        """Return dtype and shape of what one rank holds."""
        return self.readers[rank].tensors[self.stored[name]]


def uncovered(strategy: JobStrategy, tensors: Mapping[str, TensorSpec]) -> list[str]:
    """Return the parameters that a strategy says nothing about.

    Scalars, and what else belongs to a run and not to the network, are whole on every rank.
    """
    return [
        name
        for name in strategy.uncovered(tensors)
        if tensors[name].size != 1 and (is_model_parameter(name) or name.startswith(OPTIMIZER_PREFIXES))
    ]


@contextmanager
def open_slices(
    files: Mapping[int, Path], strategy: JobStrategy, stores: Sequence[CheckpointStore]
) -> Iterator[SliceSources]:
    """Open the file of every rank and check that together they make the complete tensors.

    Raises:
        MultipleFaultsError: files that cannot be read, tensors that a rank lacks or has too many of, or
            has in another shape or dtype than its neighbours; all of them together.
    """
    faults: list[Glm3Error] = []
    readers: dict[int, CheckpointReader] = {}
    allow_open_files(len(files) + 64)
    with ExitStack() as stack:
        for rank, path in files.items():
            try:
                readers[rank] = stack.enter_context(find_store(path, stores).open(path))
            except Glm3Error as fault:
                faults.append(fault)
        _raise_any("these files cannot be read:", faults)
        stored = _names(readers)
        tensors = _complete_tensors(files, readers, strategy, stored, faults)
        _raise_any("the files of the ranks do not fit together:", faults)
        yield SliceSources(strategy, files, readers, tensors, stored)


def _raise_any(summary: str, faults: Sequence[Glm3Error]) -> None:
    if faults:
        raise MultipleFaultsError(summary, faults)


def _names(readers: Mapping[int, CheckpointReader]) -> dict[str, str]:
    return {to_mindspore_name(name): name for reader in readers.values() for name in reader.tensors}


def _complete_tensors(
    files: Mapping[int, Path],
    readers: Mapping[int, CheckpointReader],
    strategy: JobStrategy,
    stored: Mapping[str, str],
    faults: list[Glm3Error],
) -> dict[str, TensorSpec]:
    """Return the complete tensors; append a fault for every rank that does not hold its part."""
    tensors: dict[str, TensorSpec] = {}
    missing: dict[int, list[str]] = {}
    surplus: dict[int, list[str]] = {}
    for name, stored_name in stored.items():
        holders = set(strategy.holders(name))
        having = {rank for rank, reader in readers.items() if stored_name in reader.tensors}
        for rank in holders - having:
            missing.setdefault(rank, []).append(name)
        for rank in having - holders:
            surplus.setdefault(rank, []).append(name)
        specs = {rank: readers[rank].tensors[stored_name] for rank in sorted(having)}
        first_rank, first = next(iter(specs.items()))
        unlike = [r for r, s in specs.items() if (s.dtype, s.shape) != (first.dtype, first.shape)]
        for rank in unlike:
            faults.append(
                CheckpointError(
                    "is of another dtype or shape than on other ranks",
                    path=files[rank],
                    field=name,
                    expected=f"{first.dtype} {list(first.shape)} as on rank {first_rank}",
                    found=f"{specs[rank].dtype} {list(specs[rank].shape)}",
                )
            )
        if not unlike:
            try:
                tensors[name] = _complete(name, first, strategy)
            except Glm3Error as fault:
                faults.append(
                    CheckpointError(f"the strategy does not fit: {fault}", path=files[first_rank], field=name)
                )
    faults += _per_rank(files, missing, "lacks parameters that the strategy gives it")
    faults += _per_rank(files, surplus, "holds parameters that the strategy gives to other ranks")
    return tensors


def _complete(name: str, held: TensorSpec, strategy: JobStrategy) -> TensorSpec:
    stage = strategy.stages_of(name)[0].stage
    shape = strategy.layout(name, len(held.shape), stage).full_shape(held.shape)
    stated = strategy.stages[stage].shapes.get(name, shape)
    if stated != shape:
        raise CheckpointError("it is for another shape", expected=list(stated), found=list(shape))
    return TensorSpec(name, held.dtype, shape)


def _per_rank(
    files: Mapping[int, Path], names: Mapping[int, Sequence[str]], what: str
) -> list[CheckpointError]:
    """Return one fault for all ranks that have the same names wrong."""
    ranks: dict[tuple[str, ...], list[int]] = {}
    for rank, wrong in sorted(names.items()):
        ranks.setdefault(tuple(wrong), []).append(rank)
    return [
        CheckpointError(f"rank {ranks_text(group)} {what}: {', '.join(wrong)}", path=files[group[0]])
        for wrong, group in ranks.items()
    ]
