"""Encode a file of rows once, and find the result again as long as nothing that shapes it has changed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

from attrs import asdict, frozen

from glm3._version import __version__
from glm3.application.cache_entries import mark_used, shrink, turn
from glm3.application.encode_rows import ReportRows, encode_chunks, usable_workers
from glm3.application.encoded_rows import EncodedRows, write_encoded_rows
from glm3.domain.atomic_write import publish, staging_folder
from glm3.domain.ports.dataset import RowReader
from glm3.domain.ports.tokenizer import SupportsFingerprint, Tokenizer
from glm3.domain.training.row_layout import RowLayout

__all__ = ["RowEncoding"]

_FORMAT = 1
"""To be raised when the same rows are to become other ids or files."""


@frozen(kw_only=True)
class RowEncoding:
    """Encode files of rows with ``reader``; keep results under ``cache`` (None keeps nothing).

    A token takes 8 bytes, and a changed file, tokenizer or limit leaves its old rows behind: what was not
    used for longest goes when all of them exceed ``cache_bytes``.

    Only ids of tokenizers with a fingerprint are kept. Processes that want the same rows at the same time
    take turns: the first encodes, the others find its result.
    """

    reader: RowReader
    cache: Path | None = None
    cache_bytes: int = 5_000_000_000

    def open(
        self,
        path: Path,
        layout: RowLayout,
        tokenizer: Tokenizer,
        *,
        limit: int | None = None,
        workers: int = 1,
        report: ReportRows = lambda _done, _total: None,
    ) -> EncodedRows:
        """Return the rows of ``path``, encoded now or earlier.

        Raises:
            MissingFileError, InvalidInputError, StorageError: the file cannot be read.
        """

        def encode_into(folder: Path) -> None:
            file = self.reader.open(path)
            chunks = encode_chunks(
                file, layout, tokenizer, limit=limit, workers=usable_workers(workers), report=report
            )
            write_encoded_rows(chunks, folder, path, file.blank_lines)

        if self.cache is None or not isinstance(tokenizer, SupportsFingerprint) or not _writable(self.cache):
            with tempfile.TemporaryDirectory(prefix="glm3-rows-") as name:
                encode_into(Path(name))
                return EncodedRows.load(Path(name))  # mapped files outlive their names
        file_identity = _identity(path)
        target = self.cache / _key(file_identity, layout, tokenizer.fingerprint, limit)
        with turn(target):
            if (found := _load(target)) is not None:
                mark_used(target)
                return found
            shutil.rmtree(target, ignore_errors=True)
            with staging_folder(target) as work:
                folder = work / target.name
                folder.mkdir()
                encode_into(folder)
                rows = EncodedRows.load(folder)
                if len(rows) and _identity(path) == file_identity:
                    publish(folder, target)
        shrink(self.cache, self.cache_bytes, target)
        return rows


def _identity(path: Path) -> tuple[object, ...]:
    if not path.is_file():
        return (str(path),)  # opening it says what is wrong
    status = path.stat()
    return str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns


def _key(identity: tuple[object, ...], layout: RowLayout, fingerprint: str, limit: int | None) -> str:
    facts = [_FORMAT, __version__, identity, asdict(layout), fingerprint, limit]
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _load(folder: Path) -> EncodedRows | None:
    try:
        return EncodedRows.load(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
