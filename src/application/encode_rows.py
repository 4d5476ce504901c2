"""Read and encode the rows of a file, several chunks at once, without holding the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from attrs import field, frozen

from glm3.domain.errors import InvalidInputError
from glm3.domain.ports.dataset import RowFile, StoredRow
from glm3.domain.training.encoding import EncodedRow
from glm3.domain.training.row_layout import EncodeRow

__all__ = ["EncodedChunk", "ReportRows", "encode_chunks", "usable_workers"]

_CHUNK_ROWS = 512

ReportRows = Callable[[int, int], None]
"""Called with the rows done and the rows in all."""


@frozen(eq=False)
class EncodedChunk:
    """Neighbouring rows: those that were encoded with their lines, and what is wrong with the others."""

    rows: list[EncodedRow] = field(factory=list)
    lines: list[int] = field(factory=list)
    faults: list[InvalidInputError] = field(factory=list)


def usable_workers(wanted: int) -> int:
    """Return how many threads to encode with: no more than there are cores for this process."""
    return max(1, min(wanted, len(os.sched_getaffinity(0))))


def encode_chunks(
    file: RowFile,
    encode: EncodeRow,
    *,
    limit: int | None = None,
    workers: int = 1,
    report: ReportRows = lambda _done, _total: None,
) -> Iterator[EncodedChunk]:
    """Yield all rows, or the first ``limit``, in the order of the file.

    Threads are enough: the vocabulary's own code, which takes most of the time, runs without the
    interpreter's lock, and processes cannot be started safely beside a running MindSpore (a fork hangs,
    a fresh interpreter runs the user's unguarded script again).

    Raises:
        InvalidInputError: the file changed meanwhile.
        StorageError: it cannot be read.
    """
    total = len(file) if limit is None else min(limit, len(file))

    def chunk(start: int) -> EncodedChunk:
        return _encode(file, encode, start, min(start + _CHUNK_ROWS, total))

    pool = ThreadPoolExecutor(workers, thread_name_prefix="encode-rows")
    try:
        starts = range(0, total, _CHUNK_ROWS)
        for start, encoded in zip(starts, pool.map(chunk, starts), strict=True):
            yield encoded
            report(min(start + _CHUNK_ROWS, total), total)
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(file: RowFile, encode: EncodeRow, start: int, stop: int) -> EncodedChunk:
    chunk = EncodedChunk()
    for row in file.read_rows(start, stop):
        try:
            encoded = _encode_one(row, encode)
        except InvalidInputError as error:
            error.path = error.path or file.path
            error.line = error.line or row.line
            chunk.faults.append(error)
        else:
            chunk.rows.append(encoded)
            chunk.lines.append(row.line)
    return chunk


def _encode_one(row: StoredRow, encode: EncodeRow) -> EncodedRow:
    if row.fault is not None:
        raise row.fault
    return encode(row.value)
