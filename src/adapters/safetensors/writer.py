"""Write safetensors files: headers first, then every tensor at its place, in any order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

from glm3.adapters.safetensors.header import build_header, file_order
from glm3.domain.announced_tensors import AnnouncedTensors
from glm3.domain.positional_io import create_file, write_at
from glm3.domain.tensors import Array, TensorSpec

__all__ = ["SafetensorsWriter", "create_files", "split_into_shards"]


@frozen
class _Place:
    path: Path  # to name in errors
    descriptor: int
    offset: int


class SafetensorsWriter:
    """A writer over open files whose headers are already written."""

    def __init__(self, announced: AnnouncedTensors, places: Mapping[str, _Place]) -> None:
        self._announced = announced
        self._places = places

    def write(self, name: str, array: Array, rows: slice | None = None) -> None:
        numbers, offset = self._announced.accept(name, array, rows)
        place = self._places[name]
        write_at(place.descriptor, place.offset + offset, numbers, place.path)


def split_into_shards(specs: Sequence[TensorSpec], max_shard_bytes: int) -> list[list[TensorSpec]]:
    """Fill shards in the given order; a tensor larger than a shard gets one of its own."""
    shards: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in specs:
        if shards[-1] and filled + spec.nbytes > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(spec)
        filled += spec.nbytes
    return shards


@contextmanager
def create_files(
    shards: Mapping[Path, Sequence[TensorSpec]], metadata: Mapping[str, str], target: Path
) -> Iterator[SafetensorsWriter]:
    """Create the files, lend a writer over all of them, and sync them when every tensor has come.

    Raises:
        CheckpointError: an announced tensor did not come.
        StorageError: the file system refused.
    """
    announced = AnnouncedTensors([spec for specs in shards.values() for spec in specs], target)
    places: dict[str, _Place] = {}
    with ExitStack() as stack:
        descriptors = []
        for path, specs in shards.items():
            ordered = file_order(specs)
            header, offsets = build_header(ordered, metadata)
            size = len(header) + sum(spec.nbytes for spec in specs)
            descriptor = stack.enter_context(create_file(path, size))
            write_at(descriptor, 0, header, path)
            places.update({name: _Place(target, descriptor, offset) for name, offset in offsets.items()})
            descriptors.append(descriptor)
        yield SafetensorsWriter(announced, places)
        announced.finish()
        for descriptor in descriptors:
            os.fsync(descriptor)
