"""The rows of a data set as batches: read, checked, encoded, and cut into steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from attrs import frozen

from glm3.application.row_sources import Pairs, RowsRequest
from glm3.domain.errors import Glm3Error, InvalidInputError, MultipleFaultsError
from glm3.domain.ports.training import MicroBatch
from glm3.domain.run_config.data import DatasetConfig
from glm3.domain.training.encoding import DialogueEncoder, EncodedRow, PairEncoder, PairLayout
from glm3.domain.training.rows import PairRow, parse_dialogue, parse_pair
from glm3.domain.training.run_guard import RowPlace
from glm3.domain.training.sampling_order import SamplingOrder

__all__ = ["EncodedRows", "ReadRows", "RowSource"]

Row = TypeVar("Row")

ReadRows = Callable[[Path], Iterable[tuple[int, object]]]
"""Yield line and value of every row of a file; an unreadable row's value is the error that says why."""

_BUILTIN = "builtin:"
_SHOWN = 20


@frozen
class EncodedRows:
    """Encoded rows, dealt to steps by ``order``; see :class:`glm3.application.row_sources.TrainingRows`."""

    rows: Sequence[EncodedRow]
    lines: Sequence[int]
    path: Path
    order: SamplingOrder
    rows_per_pass: int
    notes: Sequence[str]

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    def micro_batches(self, step: int) -> list[MicroBatch]:
        chosen = [self.rows[index] for index in self.order.rows(step)]
        cuts = [
            chosen[start : start + self.rows_per_pass] for start in range(0, len(chosen), self.rows_per_pass)
        ]
        return [
            MicroBatch(np.stack([row.input_ids for row in cut]), np.stack([row.targets for row in cut]))
            for cut in cuts
        ]

    def places(self, step: int) -> list[RowPlace]:
        return [RowPlace(self.path, self.lines[index]) for index in self.order.rows(step)]


@frozen
class RowSource:
    """Open data sets; ``builtin:NAME`` is the file ``NAME.json`` of the folder ``builtin``."""

    read: ReadRows
    builtin: Path
    layout: PairLayout = PairLayout.BARE

    def training(self, request: RowsRequest) -> EncodedRows:
        """Read and encode the rows to train on; see :class:`glm3.application.row_sources.OpenRows`.

        Raises:
            InvalidInputError: there is no usable row; or, as MultipleFaultsError, ``strict`` and a bad one.
            MissingFileError: there is no such file.
        """
        dataset = request.dataset
        path = self._path(dataset)
        notes: list[str] = []
        if dataset.data_loader.type == "ADGenDataLoader":
            columns = dataset.data_loader.origin_columns
            pairs = self._checked(dataset, lambda value: parse_pair(value, columns), notes, request.strict)
            encode_pair = self._pair_encoder(request).encode
            lines, rows = zip(*((line, encode_pair(row)) for line, row in pairs), strict=True)
        else:
            dialogues = self._checked(dataset, parse_dialogue, notes, request.strict)
            encode = DialogueEncoder(request.tokenizer, dataset.max_seq_length).encode
            lines, rows = zip(*((line, encode(row)) for line, row in dialogues), strict=True)
        notes += _cut_rows(rows, path)
        return EncodedRows(
            rows=rows,
            lines=lines,
            path=path,
            order=SamplingOrder(
                num_rows=len(rows),
                global_batch=request.batch.global_batch,
                seed=dataset.seed,
                shuffle=dataset.data_loader.shuffle,
                drop_remainder=dataset.drop_remainder,
                rank=request.rank,
                world_size=request.world_size,
            ),
            rows_per_pass=request.batch.rows_per_pass,
            notes=notes,
        )

    def pairs(self, dataset: DatasetConfig, *, strict: bool) -> Pairs:
        """Read prompts and answers as text; see :class:`glm3.application.row_sources.OpenPairs`.

        Raises:
            InvalidInputError, MissingFileError: see :meth:`training`.
        """
        notes: list[str] = []
        columns = dataset.data_loader.origin_columns
        found = self._checked(dataset, lambda value: parse_pair(value, columns), notes, strict)
        rows: list[PairRow] = [row for _, row in found]
        return Pairs(rows, notes)

    def _pair_encoder(self, request: RowsRequest) -> PairEncoder:
        dataset = request.dataset
        return PairEncoder(
            request.tokenizer,
            dataset.max_source_length,
            dataset.max_target_length,
            self.layout,
            ignore_unknown=dataset.ignore_pad_token_for_loss,
        )

    def _path(self, dataset: DatasetConfig) -> Path:
        name = dataset.data_loader.dataset_dir or ""
        if name.startswith(_BUILTIN):
            return self.builtin / f"{name.removeprefix(_BUILTIN)}.json"
        return Path(name)

    def _checked(
        self, dataset: DatasetConfig, parse: Callable[[object], Row], notes: list[str], strict: bool
    ) -> list[tuple[int, Row]]:
        """Return the rows that are right, and note how many are not; ``strict`` refuses those."""
        path = self._path(dataset)
        rows: list[tuple[int, Row]] = []
        faults: list[Glm3Error] = []
        for line, value in islice(_parsed(self.read(path), parse, path), dataset.data_loader.num_samples):
            if isinstance(value, Glm3Error):
                faults.append(value)
            else:
                rows.append((line, value))
        if not rows or (faults and strict):
            summary = f"{len(faults)} of {len(faults) + len(rows)} rows of {path} are not usable"
            if not faults:
                raise InvalidInputError("holds no row", path=path, expected="one JSON object a line")
            raise MultipleFaultsError(summary, faults[:_SHOWN])
        if faults:
            notes.append(f"{len(faults)} rows of {path} are skipped; the first: {faults[0]}")
        return rows


def _parsed(
    found: Iterable[tuple[int, object]], parse: Callable[[object], Row], path: Path
) -> Iterator[tuple[int, Row | Glm3Error]]:
    for line, value in found:
        if isinstance(value, Glm3Error):
            yield line, value
            continue
        try:
            yield line, parse(value)
        except Glm3Error as error:
            error.path, error.line = path, line
            yield line, error


def _cut_rows(rows: Sequence[EncodedRow], path: Path) -> list[str]:
    cut = sum(row.truncated for row in rows)
    masked = sum(row.supervised_tokens == 0 for row in rows)
    notes = []
    if cut:
        notes.append(f"{cut} of {len(rows)} rows of {path} are longer than their limits and are cut")
    if masked:
        notes.append(f"{masked} of {len(rows)} rows of {path} have nothing to learn")
    return notes
