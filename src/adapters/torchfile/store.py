"""The checkpoint store for PyTorch's files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from glm3.adapters.torchfile.pickled import import_torch, save_state
from glm3.adapters.torchfile.reader import TorchCheckpointReader
from glm3.domain.announced_tensors import AnnouncedTensors
from glm3.domain.atomic_write import staged_file
from glm3.domain.errors import CheckpointError, MissingFileError
from glm3.domain.positional_io import storage_errors
from glm3.domain.tensors import Array, TensorSpec

__all__ = ["TorchCheckpointStore"]

_SUFFIXES = (".bin", ".pth", ".pt")
_INDEX = "pytorch_model.bin.index.json"
_HEADROOM = 1 << 20  # bytes for torch's archive around the tensors


class _Writer:
    """Collects the tensors: ``torch.save`` writes a file in one go, so all of it is held in memory."""

    def __init__(self, specs: Sequence[TensorSpec], path: Path) -> None:
        self.announced = AnnouncedTensors(specs, path)
        self.arrays = {spec.name: np.empty(spec.shape, spec.dtype.carrier) for spec in specs}

    def write(self, name: str, array: Array, rows: slice | None = None) -> None:
        numbers, _ = self.announced.accept(name, array, rows)
        self.arrays[name][... if rows is None else rows] = numbers


class TorchCheckpointStore:
    """Read ``.bin``/``.pth``/``.pt``, an index, or a folder of them; write one such file.

    Reading is lazy. Writing holds the whole checkpoint in memory, and its metadata is not kept: the
    format has no place for it.
    """

    @property
    def format(self) -> str:
        return "torch"

    def recognises(self, path: Path) -> bool:
        if path.is_dir():
            return bool(_weight_files(path))
        return path.is_file() and (path.suffix in _SUFFIXES or path.name == _INDEX)

    @contextmanager
    def open(self, path: Path) -> Iterator[TorchCheckpointReader]:
        import_torch()
        files, weight_map = _resolve(path)
        reader = TorchCheckpointReader(files)
        stored = {name: file.name for file, names in reader.files.items() for name in names}
        if weight_map and stored != weight_map:
            names = sorted(name for name, _ in stored.items() ^ weight_map.items())
            raise CheckpointError(
                f"the index and its shards differ in {', '.join(dict.fromkeys(names))}", path=path
            )
        try:
            yield reader
        finally:
            reader.close()

    @contextmanager
    def create(
        self,
        path: Path,
        specs: Sequence[TensorSpec],
        metadata: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> Iterator[_Writer]:
        import_torch()
        writer = _Writer(specs, path)
        nbytes = sum(spec.nbytes for spec in specs) + _HEADROOM
        with staged_file(path, nbytes) as file:
            yield writer
            writer.announced.finish()
            with storage_errors(path, nbytes):
                try:
                    save_state(writer.arrays, {spec.name: spec.dtype for spec in specs}, file)
                except RuntimeError as error:  # torch's writer hides the errno
                    raise OSError(str(error).splitlines()[0]) from error
                with file.open("rb") as written:
                    os.fsync(written.fileno())


def _weight_files(folder: Path) -> list[Path]:
    """Return the index alone, or the model's files, or the one file that can be meant."""
    if (folder / _INDEX).is_file():
        return [folder / _INDEX]
    model_files = sorted(folder.glob("pytorch_model*.bin"))
    return model_files or sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)


def _resolve(path: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the files, and the file of every tensor where an index tells."""
    if not path.is_dir():
        return _shards(path) if path.name == _INDEX else ([path], {})
    files = _weight_files(path)
    if not files:
        raise MissingFileError(f"no {', '.join(_SUFFIXES)} file in this folder", path=path)
    if files[0].name == _INDEX:
        return _shards(files[0])
    if len(files) > 1 and not files[0].name.startswith("pytorch_model"):
        raise CheckpointError(
            f"{len(files)} files in one folder",
            path=path,
            found=", ".join(file.name for file in files),
            hint="name the one to read",
        )
    return files, {}


def _shards(index: Path) -> tuple[list[Path], dict[str, str]]:
    try:
        weight_map = dict(json.loads(index.read_bytes().decode())["weight_map"])
        names = sorted(set(weight_map.values()))
        if not names or not all(Path(name).name == name for name in names):
            raise ValueError("it names no shards, or some outside the folder")
    except FileNotFoundError:
        raise MissingFileError("no such file", path=index) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"is not an index of shards: {error}", path=index, field="weight_map") from None
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise MissingFileError(
            f"the index names files that are not there: {', '.join(missing)}",
            path=index,
            hint="download the missing shards",
        )
    return [index.parent / name for name in names], weight_map
