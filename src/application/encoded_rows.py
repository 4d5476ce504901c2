"""Encoded rows on disk: written as they come, mapped into memory afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from attrs import asdict, define, frozen
from numpy.typing import NDArray

from glm3.application.encode_rows import EncodedChunk
from glm3.domain.atomic_write import write_durably
from glm3.domain.errors import Glm3Error, InvalidInputError
from glm3.domain.ports.training import MicroBatch
from glm3.domain.positional_io import storage_errors
from glm3.domain.special_tokens import PAD_ID
from glm3.domain.training.encoding import IGNORE

__all__ = ["EncodedRows", "RowTally", "write_encoded_rows"]

_SUMMARY = "summary.json"
_COLUMNS: Mapping[str, type[np.generic]] = {
    "input_ids": np.int32,
    "targets": np.int32,
    "lengths": np.int32,
    "lines": np.int64,
}
_KEPT_FAULTS = 20


@define(kw_only=True)
class RowTally:
    """What came of the rows of a file; ``first_faults`` are the faults of rows that were left out."""

    rows: int = 0
    blank_lines: int = 0
    faulty: int = 0
    nothing_learned: int = 0
    prompts_cut: int = 0
    answers_cut: int = 0
    first_faults: list[dict[str, Any]]

    @property
    def left_out(self) -> int:
        return self.faulty + self.nothing_learned

    def faults(self) -> list[Glm3Error]:
        """Return the first faults, each with its place."""
        return [InvalidInputError(**fault) for fault in self.first_faults]

    def count(self, fault: InvalidInputError) -> None:
        """Remember a fault, if it is one of the first."""
        if len(self.first_faults) < _KEPT_FAULTS:
            names = ("path", "line", "field", "expected", "found", "hint")
            facts = {name: getattr(fault, name) for name in names}
            texts = {k: v if v is None or isinstance(v, int) else str(v) for k, v in facts.items()}
            self.first_faults.append({"message": fault.message, **texts})


@frozen(eq=False)
class EncodedRows:
    """Rows of different lengths, one behind the other.

    Row ``i`` is ``input_ids[bounds[i]:bounds[i + 1]]`` and the same part of ``targets``, int32, without
    padding, and stands on line ``lines[i]`` of its file.
    """

    input_ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    bounds: NDArray[np.int64]
    lines: NDArray[np.int64]
    tally: RowTally

    def __len__(self) -> int:
        return len(self.lines)

    @classmethod
    def load(cls, folder: Path) -> EncodedRows:
        """Map the files of a folder that :func:`write_encoded_rows` wrote.

        Raises:
            OSError, ValueError: they are not there, or damaged.
        """
        summary = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r" if summary["rows"] else None)
            for name in _COLUMNS
        }
        bounds = np.concatenate([[0], np.cumsum(arrays["lengths"], dtype=np.int64)])
        if not len(arrays["input_ids"]) == len(arrays["targets"]) == bounds[-1]:
            raise ValueError("cut files")
        return cls(
            arrays["input_ids"], arrays["targets"], bounds, np.array(arrays["lines"]), RowTally(**summary)
        )

    def micro_batch(self, rows: Iterable[int], size: int, seq_length: int) -> MicroBatch:
        """Return rows as one batch of ``(size, seq_length)``; positions that no row fills learn nothing."""
        input_ids = np.full((size, seq_length), PAD_ID, np.int32)
        targets = np.full((size, seq_length), IGNORE, np.int32)
        for place, row in enumerate(rows):
            start, stop = self.bounds[row], self.bounds[row + 1]
            input_ids[place, : stop - start] = self.input_ids[start:stop]
            targets[place, : stop - start] = self.targets[start:stop]
        return MicroBatch(input_ids, targets)


def write_encoded_rows(chunks: Iterable[EncodedChunk], folder: Path, path: Path, blank_lines: int) -> None:
    """Write chunks as they come to ``folder``; rows that teach nothing but to stop are left out.

    Raises:
        StorageError: the file system refused.
        Glm3Error: whatever reading the chunks raises.
    """
    tally = RowTally(blank_lines=blank_lines, first_faults=[])
    with storage_errors(folder):
        columns = {name: _Column(folder / f"{name}.npy", dtype) for name, dtype in _COLUMNS.items()}
    try:
        for chunk in chunks:
            with storage_errors(folder):
                for name, values in _kept(chunk, tally, path).items():
                    columns[name].append(values)
        with storage_errors(folder):
            for column in columns.values():
                column.finish()
    finally:
        for column in columns.values():
            column.file.close()
    write_durably(folder / _SUMMARY, json.dumps(asdict(tally), ensure_ascii=False).encode())


def _kept(chunk: EncodedChunk, tally: RowTally, path: Path) -> Mapping[str, list[Any]]:
    kept: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for fault in chunk.faults:
        tally.faulty += 1
        tally.count(fault)
    for line, row in zip(chunk.lines, chunk.rows, strict=True):
        if not row.learns:
            tally.nothing_learned += 1
            tally.count(
                InvalidInputError(
                    "nothing is learned from this row",
                    path=path,
                    line=line,
                    expected="an answer with known words inside the length limit",
                    found=f"{row.source_wanted} tokens before the answer",
                )
            )
            continue
        tally.rows += 1
        tally.prompts_cut += row.source_wanted > row.source
        tally.answers_cut += row.wanted - row.source_wanted > row.length - row.source
        kept["input_ids"].append(row.input_ids[: row.length])
        kept["targets"].append(row.targets[: row.length])
        kept["lengths"].append([row.length])
        kept["lines"].append([line])
    return kept


class _Column:
    """A one-dimensional ``.npy`` file that grows; its header has a fixed size and is completed last."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self.file: BinaryIO = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._count = 0
        self._write_header()

    def append(self, values: list[Any]) -> None:
        if values:
            array = np.concatenate(values).astype(self._dtype, copy=False)
            self.file.write(array.tobytes())
            self._count += len(array)

    def finish(self) -> None:
        self.file.seek(0)
        self._write_header()
        self.file.flush()
        os.fsync(self.file.fileno())

    def _write_header(self) -> None:
        """NumPy pads the header so that the number of elements may grow to any size in place."""
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self.file, header)  # type: ignore[no-untyped-call]
