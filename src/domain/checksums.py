"""The checksums of a checkpoint's tensors, kept in a small file beside it: ``NAME.crc32``.

A checksum is the CRC-32 of a tensor's numbers as they are stored. The file is removed before its checkpoint
is replaced and written after it, so that it is never older than what it speaks of.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.errors import CheckpointError
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.positional_io import storage_errors
from glm3.domain.tensors import Array, row_slabs

__all__ = [
    "checksum_file",
    "crc32",
    "drop_checksums",
    "read_checksums",
    "tensor_crc32",
    "write_checksums",
]


def checksum_file(checkpoint: Path) -> Path:
    """Return where the checksums of a checkpoint's file lie."""
    return checkpoint.with_name(f"{checkpoint.name}.crc32")


def crc32(array: Array, start: int = 0) -> int:
    """Return the CRC-32 of a contiguous array's bytes, going on from ``start``."""
    return zlib.crc32(array.reshape(-1).view("u1").data, start) if array.size else start


def tensor_crc32(reader: CheckpointReader, name: str) -> int:
    """Return the CRC-32 of a stored tensor, read a slab at a time.

    Raises:
        CheckpointError: there is no such tensor, or its file is cut.
    """
    total = 0
    for rows in row_slabs(reader.tensors[name]):
        total = crc32(reader.read(name, rows), total)
    return total


def write_checksums(checkpoint: Path, checksums: Mapping[str, int]) -> None:
    """Write the checksums of a file that is in its place.

    Raises:
        StorageError: the file system refused.
    """
    values = {
        "bytes": checkpoint.stat().st_size,
        "crc32": {name: f"{value:08x}" for name, value in checksums.items()},
    }
    content = (json.dumps(values, ensure_ascii=False, indent=1) + "\n").encode()
    with staged_file(checksum_file(checkpoint), len(content)) as place:
        write_durably(place, content)


def drop_checksums(checkpoint: Path) -> None:
    """Remove the checksums of a file that is about to be replaced or removed.

    Raises:
        StorageError: the file system refused.
    """
    with storage_errors(checkpoint):
        checksum_file(checkpoint).unlink(missing_ok=True)


def read_checksums(checkpoint: Path) -> Mapping[str, int] | None:
    """Return the checksums beside a file by tensor, None if there are none.

    Raises:
        CheckpointError: they are damaged, or speak of a file of another size.
    """
    path = checksum_file(checkpoint)
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_bytes().decode())
        size, sums = int(values["bytes"]), {str(k): int(v, 16) for k, v in values["crc32"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(
            "is not a file of checksums", path=path, hint="remove it to go on without a check"
        ) from None
    found = checkpoint.stat().st_size
    if size != found:
        raise CheckpointError(
            "the file is cut, damaged or another one than its checksums say",
            path=checkpoint,
            expected=f"{size} bytes",
            found=f"{found} bytes",
        )
    return sums
