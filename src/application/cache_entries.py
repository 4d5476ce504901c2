"""Entries of a cache folder that many processes share: one makes each, the least used go first.

An entry is a folder with a lock file beside it. Whoever makes, reads or removes it holds the lock; files that
were mapped meanwhile outlive their names.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from glm3.domain.atomic_write import remove_leftovers

__all__ = ["mark_used", "shrink", "turn"]


@contextmanager
def turn(entry: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an entry's lock inside the block; without ``wait`` lend False if another process has it.

    A file system without locks makes an entry several times.
    """
    descriptor = _locked(entry.with_suffix(".lock"), wait=wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def mark_used(entry: Path) -> None:
    """Remember that an entry was used just now."""
    with suppress(OSError):
        os.utime(entry)


def shrink(cache: Path, limit: int, kept: Path) -> None:
    """Remove the entries that were not used for longest until ``limit`` bytes are left, but never ``kept``.

    Entries that another process holds stay, and so does what cannot be removed; what a killed process left
    half made goes.
    """
    with suppress(OSError):
        for left in cache.glob(".*.partial"):
            remove_leftovers(cache / left.name.split(".")[1])
        entries = sorted(
            (_Entry.of(path) for path in cache.iterdir() if path.is_dir() and not path.name.startswith(".")),
            key=lambda entry: entry.used,
        )
        total = sum(entry.nbytes for entry in entries)
        for entry in entries:
            if total <= limit:
                return
            if entry.path != kept and entry.remove():
                total -= entry.nbytes


@frozen
class _Entry:
    path: Path
    nbytes: int
    used: int

    @classmethod
    def of(cls, path: Path) -> _Entry:
        return cls(path, sum(file.stat().st_size for file in path.iterdir()), path.stat().st_mtime_ns)

    def remove(self) -> bool:
        """Remove the entry unless it is in use or was used since it was looked at."""
        with turn(self.path, wait=False) as mine:
            if not mine or (self.path.exists() and self.path.stat().st_mtime_ns != self.used):
                return False
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.with_suffix(".lock").unlink(missing_ok=True)
        return True


def _locked(path: Path, *, wait: bool) -> int | None:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            return descriptor
        if _is_there(path, descriptor):
            return descriptor
        os.close(descriptor)  # the entry was removed, with its lock, while this process waited


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
