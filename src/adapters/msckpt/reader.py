"""Read tensors of a MindSpore checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

from glm3.adapters.msckpt.dtypes import DTYPES, TEXT_TYPE
from glm3.adapters.msckpt.scan import CRC_BYTES, CRC_MARK, Entry, scan
from glm3.adapters.msckpt.wire import FileWindow
from glm3.domain.announced_tensors import absent_tensor, check_shape, row_range
from glm3.domain.errors import CheckpointError
from glm3.domain.positional_io import open_for_reading, read_array, read_at
from glm3.domain.tensors import Array, TensorSpec

__all__ = ["MindSporeCheckpointReader", "open_file"]

_MAX_TEXT = 1 << 20  # bytes of one text value


class MindSporeCheckpointReader:
    """A reader over one open file; texts saved in ``append_dict`` are its metadata."""

    def __init__(self, descriptor: int, path: Path, entries: Sequence[Entry]) -> None:
        self._descriptor = descriptor
        self._path = path
        self._pieces = {entry.tag: entry.pieces for entry in entries}
        self._tensors = {e.tag: _spec(e, path) for e in entries if e.type_name != TEXT_TYPE}
        self._metadata = {e.tag: self._text(e) for e in entries if e.type_name == TEXT_TYPE}

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return self._tensors

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._metadata

    @property
    def files(self) -> Mapping[Path, Sequence[str]]:
        return {self._path: tuple(self._tensors)}

    def read(self, name: str, rows: slice | None = None) -> Array:
        if name not in self._tensors:
            raise absent_tensor(name, self._tensors, self._path)
        spec = self._tensors[name]
        start, stop = row_range(spec, rows)
        array = np.empty((stop - start, *spec.shape[1:]) if spec.shape else (), dtype=spec.dtype.carrier)
        into = array.reshape(-1).view(np.uint8)
        begin = start * prod(spec.shape[1:]) * spec.dtype.itemsize
        position = 0  # of the piece inside the tensor
        for offset, length in self._pieces[name]:
            low, high = max(begin, position), min(begin + array.nbytes, position + length)
            if low < high:
                read_array(
                    self._descriptor, offset + low - position, into[low - begin : high - begin], self._path
                )
            position += length
        return array

    def _text(self, entry: Entry) -> str:
        if entry.nbytes > _MAX_TEXT:
            raise CheckpointError("a text too long", path=self._path, field=entry.tag, found=entry.nbytes)
        content = b"".join(read_at(self._descriptor, *piece, self._path) for piece in entry.pieces)
        try:
            return content.decode("utf-32-le").rstrip("\0")
        except UnicodeDecodeError:
            raise CheckpointError("not a text", path=self._path, field=entry.tag) from None


def _spec(entry: Entry, path: Path) -> TensorSpec:
    dtype = DTYPES.get(entry.type_name)
    if dtype is None:
        raise CheckpointError(
            "unsupported dtype", path=path, field=entry.tag, expected=" ".join(DTYPES), found=entry.type_name
        )
    shape = entry.dims
    if shape == (0,) and entry.nbytes == dtype.itemsize:
        shape = ()  # MindSpore has written scalars this way
    spec = check_shape(TensorSpec(entry.tag, dtype, shape), path)
    if spec.nbytes != entry.nbytes:
        raise CheckpointError(
            f"the content does not fit the shape {list(shape)}",
            path=path,
            field=entry.tag,
            expected=f"{spec.nbytes} bytes",
            found=f"{entry.nbytes} bytes at offset {entry.pieces[0][0]}",
        )
    return spec


@contextmanager
def open_file(path: Path) -> Iterator[MindSporeCheckpointReader]:
    """Open a checkpoint and check its framing; no tensor content is read.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: the file is empty, cut, or garbage.
    """
    with open_for_reading(path) as (descriptor, size):
        if size == 0:
            raise CheckpointError("the file is empty", path=path)
        if size >= CRC_BYTES and read_at(descriptor, size - CRC_BYTES, CRC_BYTES, path).startswith(CRC_MARK):
            size -= CRC_BYTES
        yield MindSporeCheckpointReader(descriptor, path, scan(FileWindow(descriptor, size, path)))
