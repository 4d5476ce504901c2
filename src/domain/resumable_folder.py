"""A folder that is filled over several attempts and published when it is whole.

It lies beside its target, ``.NAME.unfinished``, under a lock. A killed process leaves it; the next one that
makes the same thing of the same sources goes on in it, any other empties it first.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm3.domain.atomic_write import publish, write_durably
from glm3.domain.errors import StorageError
from glm3.domain.positional_io import storage_errors

__all__ = ["resumable_folder", "unfinished_folder"]

_TASK = ".task"


def unfinished_folder(target: Path) -> Path:
    """Return where a folder is filled before it is published."""
    target = target.resolve()
    return target.parent / f".{target.name}.unfinished"


@contextmanager
def resumable_folder(target: Path, task: str) -> Iterator[Path]:
    """Lend the unfinished folder of ``target``; when the block ends without an exception it is published.

    ``task`` says what is made of what: the files of an earlier attempt are there only if it said the same.
    An exception leaves the files that are there for the next attempt. A ``target`` that exists and is not
    empty keeps what it has; the new files are moved into it one by one.

    Raises:
        StorageError: another process is filling it, or the file system refused.
    """
    work = unfinished_folder(target)
    with storage_errors(work):
        work.mkdir(parents=True, exist_ok=True)
    with _locked(work):
        with storage_errors(work):
            _prepare(work, task)
        try:
            yield work
        except BaseException:
            if not any(path.is_file() for path in work.glob("*/*")):
                shutil.rmtree(work, ignore_errors=True)
            raise
        with storage_errors(target):
            _publish(work, target.resolve())


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    with storage_errors(work):
        lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                "another process is writing this", path=work, hint="wait until it has finished"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(lock)


def _prepare(work: Path, task: str) -> None:
    note = work / _TASK
    if note.is_file() and note.read_bytes() == task.encode():
        return
    for entry in work.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    write_durably(note, task.encode())


def _publish(work: Path, target: Path) -> None:
    if not target.exists() or not any(target.iterdir()):
        publish(work, target)
        (target / _TASK).unlink()
        return
    for path in sorted(work.rglob("*")):
        place = target / path.relative_to(work)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        elif path.parent != work:
            publish(path, place)
    shutil.rmtree(work)
