"""Write a MindSpore checkpoint: every header first, then the numbers at their places, in any order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path

import numpy as np
from attrs import frozen

from glm3.adapters.msckpt.dtypes import TEXT_TYPE, TYPE_NAMES
from glm3.adapters.msckpt.wire import LENGTH_DELIMITED, VARINT, field_key, varint
from glm3.domain.announced_tensors import AnnouncedTensors
from glm3.domain.errors import CheckpointError
from glm3.domain.positional_io import create_file, write_at
from glm3.domain.tensors import Array, TensorSpec

__all__ = ["Layout", "MindSporeCheckpointWriter", "create_at", "lay_out"]


@frozen
class Layout:
    """Where everything goes: ``headers`` by offset, and per tensor the ``(offset, length)`` of its pieces."""

    headers: Mapping[int, bytes]
    pieces: Mapping[str, Sequence[tuple[int, int]]]
    size: int


def lay_out(specs: Sequence[TensorSpec], metadata: Mapping[str, str], piece_bytes: int) -> Layout:
    """Plan a file whose tensors are cut into pieces of at most ``piece_bytes``; texts come last."""
    headers: dict[int, bytes] = {}
    pieces: dict[str, list[tuple[int, int]]] = {}
    offset = 0
    for spec in specs:
        pieces[spec.name] = []
        for number in range(max(1, ceil(spec.nbytes / piece_bytes))):
            length = min(piece_bytes, spec.nbytes - number * piece_bytes)
            headers[offset] = _header(spec.name, spec.shape, TYPE_NAMES[spec.dtype], length)
            pieces[spec.name].append((offset + len(headers[offset]), length))
            offset += len(headers[offset]) + length
    for tag, text in metadata.items():
        content = text.encode("utf-32-le")
        headers[offset] = _header(tag, (0,), TEXT_TYPE, len(content)) + content
        offset += len(headers[offset])
    return Layout(headers, pieces, offset)


def _header(tag: str, dims: Sequence[int], type_name: str, content_bytes: int) -> bytes:
    """Return the bytes of one ``Checkpoint`` message up to its content, as MindSpore serialises it."""
    tensor = b"".join(field_key(1, VARINT) + varint(size) for size in dims)
    tensor += _opening(2, len(type_name)) + type_name.encode()
    tensor += _opening(3, content_bytes)
    name = tag.encode()
    value = _opening(1, len(name)) + name + _opening(2, len(tensor) + content_bytes) + tensor
    return _opening(1, len(value) + content_bytes) + value


def _opening(number: int, length: int) -> bytes:
    return field_key(number, LENGTH_DELIMITED) + varint(length)


class MindSporeCheckpointWriter:
    """A writer over one open file whose headers are already written."""

    def __init__(self, descriptor: int, path: Path, layout: Layout, announced: AnnouncedTensors) -> None:
        self._descriptor = descriptor
        self._path = path
        self._layout = layout
        self._announced = announced

    def write(self, name: str, array: Array, rows: slice | None = None) -> None:
        numbers, begin = self._announced.accept(name, array, rows)
        data = numbers.reshape(-1).view(np.uint8)
        position = 0  # of the piece inside the tensor
        for offset, length in self._layout.pieces[name]:
            low, high = max(begin, position), min(begin + data.size, position + length)
            if low < high:
                write_at(
                    self._descriptor, offset + low - position, data[low - begin : high - begin], self._path
                )
            position += length


@contextmanager
def create_at(
    staged: Path, target: Path, specs: Sequence[TensorSpec], metadata: Mapping[str, str], layout: Layout
) -> Iterator[MindSporeCheckpointWriter]:
    """Create the file at ``staged``, lend its writer, and sync it when every tensor has come.

    Raises:
        CheckpointError: an announced tensor did not come, or a text bears a tensor's name.
        StorageError: the file system refused.
    """
    announced = AnnouncedTensors(specs, target)
    for tag in metadata.keys() & layout.pieces.keys():
        raise CheckpointError("is the name of a tensor and of a text", path=target, field=tag)
    with create_file(staged, layout.size) as descriptor:
        for offset, header in layout.headers.items():
            write_at(descriptor, offset, header, target)
        yield MindSporeCheckpointWriter(descriptor, target, layout, announced)
        announced.finish()
        os.fsync(descriptor)
