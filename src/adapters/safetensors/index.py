"""Hugging Face's index of shards: ``{"metadata": {"total_size": n}, "weight_map": {name: file}}``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from glm3.domain.errors import CheckpointError, MissingFileError, StorageError

__all__ = ["INDEX_SUFFIX", "build_index", "check_against_shards", "read_index", "shard_names"]

INDEX_SUFFIX = ".safetensors.index.json"


def read_index(path: Path) -> dict[str, str]:
    """Return the file of every tensor.

    Raises:
        MissingFileError: the index or a shard it names does not exist.
        CheckpointError: the index is not one.
    """
    try:
        values = json.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise MissingFileError("no such file", path=path) from None
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror}", path=path) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"is not valid JSON: {error}", path=path) from None
    weight_map = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("must map names to files", path=path, field="weight_map")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(
                "must be a file name without folders", path=path, field=f"weight_map.{name}", found=repr(file)
            )
    missing = sorted(file for file in set(weight_map.values()) if not (path.parent / file).exists())
    if missing:
        raise MissingFileError(
            f"the index names {len(missing)} files that are not there: {', '.join(missing)}",
            path=path,
            hint="download the missing shards",
        )
    return weight_map


def check_against_shards(
    weight_map: Mapping[str, str], files: Mapping[Path, Iterable[str]], path: Path
) -> None:
    """Check that every tensor lies in the shard the index names, and that no other is there.

    Raises:
        CheckpointError: naming every tensor that does not.
    """
    stored = {(name, file.name) for file, names in files.items() for name in names}
    faults = [f"{name} is not in {file}" for name, file in weight_map.items() if (name, file) not in stored]
    faults += [
        f"{name} of {file} is not in the index" for name, file in sorted(stored - set(weight_map.items()))
    ]
    if faults:
        raise CheckpointError("the index and its shards differ: " + "; ".join(faults), path=path)


def shard_names(count: int) -> list[str]:
    """Return the names of the shards as Hugging Face writes them."""
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def build_index(weight_map: Mapping[str, str], total_size: int) -> bytes:
    """Return the content of an index file."""
    values = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode()
