"""The checkpoint store for safetensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from glm3.adapters.safetensors.index import (
    INDEX_SUFFIX,
    build_index,
    check_against_shards,
    read_index,
    shard_names,
)
from glm3.adapters.safetensors.reader import SafetensorsReader, open_files
from glm3.adapters.safetensors.writer import SafetensorsWriter, create_files, split_into_shards
from glm3.domain.atomic_write import staged_file, staged_folder, write_durably
from glm3.domain.errors import CheckpointError, MissingFileError
from glm3.domain.tensors import TensorSpec

__all__ = ["SafetensorsStore"]

_SUFFIX = ".safetensors"
_HEADROOM = 1 << 20  # bytes for headers and the index, which are small but not nothing


class SafetensorsStore:
    """Read ``x.safetensors``, an index, or a folder of either; write a file or a folder of shards.

    A target that ends in ``.safetensors`` becomes one file; any other becomes a folder of shards of at
    most ``max_shard_bytes`` with an index, named as Hugging Face names them. The default gives the seven
    shards of the published ChatGLM3-6B.
    """

    def __init__(self, max_shard_bytes: int = 2_000_000_000) -> None:
        self._max_shard_bytes = max_shard_bytes

    @property
    def format(self) -> str:
        return "safetensors"

    def recognises(self, path: Path) -> bool:
        if path.is_dir():
            return any(_weight_files(path))
        return path.is_file() and path.name.endswith((_SUFFIX, INDEX_SUFFIX))

    @contextmanager
    def open(self, path: Path) -> Iterator[SafetensorsReader]:
        index, files = _resolve(path)
        weight_map = {} if index is None else read_index(index)
        if index is not None:
            files = [index.parent / name for name in dict.fromkeys(sorted(weight_map.values()))]
        with open_files(files) as reader:
            if index is not None:
                check_against_shards(weight_map, reader.files, index)
            yield reader

    @contextmanager
    def create(
        self, path: Path, specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None
    ) -> Iterator[SafetensorsWriter]:
        nbytes = sum(spec.nbytes for spec in specs) + _HEADROOM
        metadata = metadata or {}
        if path.name.endswith(_SUFFIX):
            with staged_file(path, nbytes) as file, create_files({file: specs}, metadata, path) as writer:
                yield writer
            return
        shards = split_into_shards(specs, self._max_shard_bytes)
        names = shard_names(len(shards))
        with staged_folder(path, nbytes) as folder:
            files = {folder / name: shard for name, shard in zip(names, shards, strict=True)}
            with create_files(files, metadata, path) as writer:
                yield writer
            if len(files) > 1:
                homes = {spec.name: file.name for file, shard in files.items() for spec in shard}
                index = build_index(homes, sum(spec.nbytes for spec in specs))
                write_durably(folder / f"model{INDEX_SUFFIX}", index)


def _weight_files(folder: Path) -> Iterator[Path]:
    return (entry for entry in sorted(folder.iterdir()) if entry.name.endswith((_SUFFIX, INDEX_SUFFIX)))


def _resolve(path: Path) -> tuple[Path | None, list[Path]]:
    """Return the index, or else the files themselves."""
    if path.name.endswith(INDEX_SUFFIX) and not path.is_dir():
        return path, []
    if not path.is_dir():
        return None, [path]
    files = list(_weight_files(path))
    indexes = [file for file in files if file.name.endswith(INDEX_SUFFIX)]
    if not files:
        raise MissingFileError(f"no *{_SUFFIX} file in this folder", path=path)
    if len(indexes) > 1:
        raise CheckpointError(
            "several indexes in one folder",
            path=path,
            found=", ".join(index.name for index in indexes),
            hint="name the one to read",
        )
    return (indexes[0], []) if indexes else (None, files)
