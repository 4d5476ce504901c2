"""Read and write at offsets, whole or not at all, with the project's own errors.

Plain positional reads keep a converter's resident memory at what it holds; a mapped file would count
page by page.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from glm3.domain.errors import CheckpointError, Glm3Error, MissingFileError, StorageError
from glm3.domain.tensors import Array

__all__ = [
    "allow_open_files",
    "create_file",
    "free_bytes",
    "open_for_reading",
    "read_array",
    "read_at",
    "require_free_bytes",
    "storage_errors",
    "write_at",
]


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def free_bytes(path: Path) -> int:
    """Return the free bytes of the file system that holds ``path`` or its nearest existing parent."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def require_free_bytes(path: Path, nbytes: int, *, place: Path | None = None, what: str = "") -> None:
    """Check that ``nbytes`` more fit ``path``, or ``place`` where the bytes really go.

    Raises:
        StorageError: they do not; with the bytes needed and free.
    """
    free = free_bytes(place or path)
    if free < nbytes:
        raise StorageError(
            f"not enough space for {what}" if what else "not enough space",
            path=path,
            expected=f"{nbytes} bytes",
            found=f"{free} bytes free",
            hint="free some space or choose another place",
        )


def allow_open_files(count: int) -> None:
    """Let this process have ``count`` files open, as far as the system's hard limit goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def storage_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Translate what the file system refuses inside the block.

    Raises:
        StorageError: naming ``path``, and where there is no room the bytes needed and the bytes free.
    """
    try:
        yield
    except Glm3Error:
        raise
    except OSError as error:
        full = error.errno in _NO_ROOM
        raise StorageError(
            f"cannot be written: {error.strerror or error}",
            path=path,
            expected=f"{needed} bytes" if full and needed is not None else None,
            found=f"{free_bytes(path)} bytes free" if full else None,
            hint=f"{'free some space' if full else 'check the permissions'}, or choose another place",
        ) from error


@contextmanager
def open_for_reading(path: Path) -> Iterator[tuple[int, int]]:
    """Lend a file descriptor and the file's size.

    Raises:
        MissingFileError: there is no such file.
        StorageError: it may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MissingFileError("no such file", path=path) from None
    except OSError as error:
        raise StorageError(f"cannot be opened: {error.strerror}", path=path) from error
    try:
        if not path.is_file():
            raise StorageError("is not a plain file", path=path)
        yield descriptor, os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


@contextmanager
def create_file(path: Path, nbytes: int) -> Iterator[int]:
    """Lend a descriptor of a new file that already has its final size.

    Raises:
        StorageError: the file system refused.
    """
    with storage_errors(path, nbytes):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with storage_errors(path, nbytes):
            os.ftruncate(descriptor, nbytes)
        yield descriptor
    finally:
        os.close(descriptor)


def read_at(descriptor: int, offset: int, nbytes: int, path: Path) -> bytes:
    """Return exactly ``nbytes`` bytes at ``offset``; the caller has bounded ``nbytes`` by the file's size."""
    buffer = bytearray(nbytes)
    _fill(descriptor, memoryview(buffer), offset, path)
    return bytes(buffer)


def read_array(descriptor: int, offset: int, array: Array, path: Path) -> None:
    """Fill a contiguous array from the bytes at ``offset``.

    Raises:
        CheckpointError: the file ends before the array is full.
    """
    _fill(descriptor, _bytes_of(array), offset, path)


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _fill(descriptor: int, view: memoryview, offset: int, path: Path) -> None:
    done = 0
    while done < len(view):
        try:
            got = os.preadv(descriptor, [view[done:]], offset + done)
        except OSError as error:
            raise StorageError(f"cannot be read: {error.strerror}", path=path) from error
        if got == 0:
            raise CheckpointError(
                f"the file ends inside the {len(view)} bytes at offset {offset}",
                path=path,
                found=f"{done} bytes",
            )
        done += got


def write_at(descriptor: int, offset: int, data: Array | bytes, path: Path) -> None:
    """Write all bytes of ``data`` (a contiguous array or bytes) at ``offset``.

    Raises:
        StorageError: the file system refused.
    """
    view = memoryview(data) if isinstance(data, bytes) else _bytes_of(data)
    done = 0
    with storage_errors(path, len(view)):
        while done < len(view):
            done += os.pwrite(descriptor, view[done:], offset + done)
