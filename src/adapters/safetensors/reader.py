"""Read tensors of one or many safetensors files."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path

import numpy as np
from attrs import frozen

from glm3.adapters.safetensors.header import Header, read_header
from glm3.domain.announced_tensors import absent_tensor, row_range
from glm3.domain.errors import CheckpointError
from glm3.domain.positional_io import open_for_reading, read_array
from glm3.domain.tensors import Array, TensorSpec

__all__ = ["SafetensorsReader", "open_files"]

_MAP_FROM = 1 << 20  # bytes; below, a mapping costs more than the copy it saves


@frozen
class _File:
    path: Path
    descriptor: int
    header: Header


class SafetensorsReader:
    """A reader over open files.

    A large whole tensor comes as a private mapping that lives as long as its array: no copy, and the
    kernel may drop its pages at any time. Rows and small tensors are copied out.
    """

    def __init__(self, files: Sequence[_File]) -> None:
        self._files = {file.path: file for file in files}
        self._home = {name: file for file in files for name in file.header.specs}
        self._tensors = {name: file.header.specs[name] for name, file in self._home.items()}

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return self._tensors

    @property
    def metadata(self) -> Mapping[str, str]:
        return {key: text for file in self._files.values() for key, text in file.header.metadata.items()}

    @property
    def files(self) -> Mapping[Path, Sequence[str]]:
        return {path: tuple(file.header.specs) for path, file in self._files.items()}

    def read(self, name: str, rows: slice | None = None) -> Array:
        if name not in self._tensors:
            raise absent_tensor(name, self._tensors, next(iter(self._files), None))
        spec, file = self._tensors[name], self._home[name]
        start, stop = row_range(spec, rows)
        shape = (stop - start, *spec.shape[1:]) if spec.shape else ()
        offset = file.header.offsets[name] + start * prod(spec.shape[1:]) * spec.dtype.itemsize
        if rows is None and spec.nbytes >= _MAP_FROM and offset % spec.dtype.itemsize == 0:
            return _map(file, offset, spec)
        array = np.empty(shape, dtype=spec.dtype.carrier)
        read_array(file.descriptor, offset, array, file.path)
        return array


def _map(file: _File, offset: int, spec: TensorSpec) -> Array:
    lead = offset % mmap.ALLOCATIONGRANULARITY
    try:
        region = mmap.mmap(file.descriptor, spec.nbytes + lead, access=mmap.ACCESS_COPY, offset=offset - lead)
    except ValueError:  # the file has shrunk since its header was checked
        raise CheckpointError("the file has been cut since it was opened", path=file.path) from None
    return np.frombuffer(region, spec.dtype.carrier, spec.size, lead).reshape(spec.shape)


@contextmanager
def open_files(paths: Sequence[Path]) -> Iterator[SafetensorsReader]:
    """Open files that together hold one checkpoint, and check every header.

    Raises:
        MissingFileError: a file is not there.
        CheckpointError: a header is wrong, or two files hold the same name.
    """
    with ExitStack() as stack:
        files: list[_File] = []
        homes: dict[str, Path] = {}
        for path in paths:
            descriptor, size = stack.enter_context(open_for_reading(path))
            files.append(_File(path, descriptor, read_header(descriptor, size, path)))
            for name in files[-1].header.specs:
                if name in homes:
                    raise CheckpointError(
                        "is stored twice", path=path, field=name, found=f"{homes[name].name} and {path.name}"
                    )
                homes[name] = path
        yield SafetensorsReader(files)
