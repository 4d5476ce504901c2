"""Publish files and folders whole or not at all.

What is being written lies in a private folder beside its target, ``.NAME.xxxxxxxx.partial``, which its
writer holds a lock on. When all of it is on the disk, one rename publishes it. A killed writer leaves
only that folder, and the next writer of the same target removes it, knowing by the lock that it is dead.

An existing file is replaced. An existing folder is replaced as a whole, by swapping it with the new one
in one step, and only if it is empty or a folder of weights: plain files alone, one of them a weight file.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm3.domain.errors import StorageError
from glm3.domain.positional_io import require_free_bytes, storage_errors

__all__ = [
    "WEIGHT_SUFFIXES",
    "publish",
    "remove_leftovers",
    "require_replaceable",
    "staged_file",
    "staged_folder",
    "staging_folder",
    "write_durably",
]

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".pth", ".pt")

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux


@contextmanager
def staging_folder(target: Path, nbytes: int = 0) -> Iterator[Path]:
    """Lend an empty private folder on the file system of ``target``; it is removed afterwards.

    The parent folders of ``target`` are made, and leftovers of killed writers of it removed.

    Raises:
        StorageError: there are fewer than ``nbytes`` bytes free, or the place may not be written.
    """
    target = _absolute(target)
    with storage_errors(target, nbytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        require_free_bytes(target, nbytes, place=target.parent)
        folder, lock = _make_locked(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def staged_file(target: Path, nbytes: int = 0) -> Iterator[Path]:
    """Lend a free path; the synced file made there is published when the block ends without an exception.

    Raises:
        StorageError: the file system refused.
    """
    target = _absolute(target)
    with staging_folder(target, nbytes) as work:
        yield work / target.name
        publish(work / target.name, target)


@contextmanager
def staged_folder(target: Path, nbytes: int = 0) -> Iterator[Path]:
    """Lend an empty folder, which is published when the block ends without an exception.

    Raises:
        StorageError: the file system refused, or ``target`` is something that is not replaced.
    """
    target = _absolute(target)
    require_replaceable(target)
    with staging_folder(target, nbytes) as work:
        folder = work / target.name
        with storage_errors(target):
            folder.mkdir()
        yield folder
        publish(folder, target)


def publish(staged_path: Path, target: Path) -> None:
    """Move a finished file or folder, whose files are synced, to its place in one step.

    Raises:
        StorageError: the file system refused, or ``target`` is something that is not replaced.
    """
    target = _absolute(target)
    is_folder = staged_path.is_dir()
    if is_folder:
        require_replaceable(target)
    with storage_errors(target):
        if is_folder:
            _sync_folder(staged_path)
        if is_folder and target.exists() and any(target.iterdir()):
            _exchange(staged_path, target)
        else:
            staged_path.replace(target)
        _sync_folder(target.parent)


def require_replaceable(target: Path) -> None:
    """Check early that a folder may be published here.

    Raises:
        StorageError: ``target`` is a file, or a folder that holds other things than weights.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise StorageError("a file is in the place of the folder", path=target)
    with storage_errors(target):
        entries = list(target.iterdir())
    plain = all(entry.is_file() for entry in entries)
    if entries and not (plain and any(entry.suffix in WEIGHT_SUFFIXES for entry in entries)):
        raise StorageError(
            "the folder holds other things than weights and is not replaced",
            path=target,
            hint="choose a new folder, or empty this one",
        )


def write_durably(path: Path, content: bytes) -> None:
    """Write a small file and sync it; meant for staged places, so not atomic by itself.

    Raises:
        StorageError: the file system refused.
    """
    with storage_errors(path, len(content)), path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _absolute(target: Path) -> Path:
    """Resolve links: what a link points to is replaced where it lies, on its own file system."""
    return target.resolve()


def _make_locked(target: Path) -> tuple[Path, int]:
    while True:
        folder = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
        folder.mkdir()
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another writer took it for a leftover before it was locked
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            return folder, lock  # a file system without locks: others then leave the folder alone too
        try:
            if os.path.samestat(folder.stat(), os.fstat(lock)):
                return folder, lock
        except FileNotFoundError:
            pass
        os.close(lock)


def remove_leftovers(target: Path) -> None:
    """Remove the private folders of killed writers of ``target``."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.partial")
    for folder in target.parent.iterdir():
        if not pattern.fullmatch(folder.name):
            continue
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # its writer is alive
        finally:
            os.close(lock)


def _exchange(folder: Path, target: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(library, "renameat2", None)
    names = os.fsencode(folder), os.fsencode(target)
    if renameat2 is None or renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        raise StorageError(
            "this file system cannot swap two folders in one step",
            path=target,
            hint="remove the old folder first, or choose a new one",
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
