"""Use case: look at every row of a data set before a run does."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field, frozen

from glm3.application.encode_rows import EncodedChunk, ReportRows, encode_chunks, usable_workers
from glm3.domain.errors import InvalidInputError
from glm3.domain.ports.dataset import RowReader
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.training.data_report import DataReport, Lengths, SuggestedLimits, fault_kind, suggest_limits
from glm3.domain.training.row_layout import RowLayout

__all__ = ["SHARES", "CheckRequest", "DataCheck"]

SHARES = (0.99, 1.0)
"""The shares of rows that limits are suggested for."""

_NAMED = 10


@frozen(kw_only=True)
class CheckRequest:
    """Rows to look at; ``max_faults`` are kept to be shown, all are counted."""

    path: Path
    layout: RowLayout
    tokenizer: Tokenizer
    max_faults: int = 50
    limit: int | None = None
    workers: int = 8


@frozen
class DataCheck:
    """Check files that ``reader`` reads."""

    reader: RowReader

    def run(self, request: CheckRequest, report: ReportRows = lambda _done, _total: None) -> DataReport:
        """Read and encode every row as training would, and tell what was found.

        Raises:
            MissingFileError, InvalidInputError, StorageError: the file as a whole cannot be read.
        """
        file = self.reader.open(request.path)
        found = _Found(request)
        for chunk in encode_chunks(
            file,
            request.layout,
            request.tokenizer,
            limit=request.limit,
            workers=usable_workers(request.workers),
            report=report,
        ):
            found.add(chunk)
        return found.result(file.blank_lines)


@define
class _Found:
    request: CheckRequest
    faults: list[InvalidInputError] = field(factory=list)
    kinds: Counter[str] = field(factory=Counter)
    wholes: list[int] = field(factory=list)
    sources: list[int] = field(factory=list)
    seen: dict[bytes, int] = field(factory=dict)
    duplicates: int = 0
    duplicate_lines: list[tuple[int, int]] = field(factory=list)
    masked: int = 0
    masked_lines: list[int] = field(factory=list)
    prompts_cut: int = 0
    answers_cut: int = 0
    supervised: int = 0

    def add(self, chunk: EncodedChunk) -> None:
        room = self.request.max_faults - len(self.faults)
        self.faults += chunk.faults[: max(0, room)]
        self.kinds.update(map(fault_kind, chunk.faults))
        for line, row in zip(chunk.lines, chunk.rows, strict=True):
            self.wholes.append(row.wanted)
            self.sources.append(row.source_wanted)
            self.prompts_cut += row.source_wanted > row.source
            self.answers_cut += row.wanted - row.source_wanted > row.length - row.source
            self.supervised += row.supervised_tokens
            if not row.learns:
                self.masked += 1
                _name(self.masked_lines, line)
            ids = row.input_ids[: row.length].tobytes() + row.targets[: row.length].tobytes()
            earlier = self.seen.setdefault(blake2b(ids, digest_size=12).digest(), line)
            if earlier != line:
                self.duplicates += 1
                _name(self.duplicate_lines, (line, earlier))

    def result(self, blank_lines: int) -> DataReport:
        return DataReport(
            path=self.request.path,
            layout=self.request.layout,
            rows=len(self.wholes),
            blank_lines=blank_lines,
            faulty=self.kinds.total(),
            faults=self.faults,
            fault_kinds=dict(self.kinds.most_common()),
            prompts_cut=self.prompts_cut,
            answers_cut=self.answers_cut,
            nothing_learned=self.masked,
            nothing_learned_lines=self.masked_lines,
            duplicates=self.duplicates,
            duplicate_lines=self.duplicate_lines,
            supervised_tokens=self.supervised,
            lengths=Lengths(np.array(self.wholes)) if self.wholes else None,
            suggestions=self._suggestions(),
        )

    def _suggestions(self) -> list[SuggestedLimits]:
        if not self.wholes:
            return []
        wholes, sources = np.array(self.wholes), np.array(self.sources)
        lengths = Lengths(sources), Lengths(wholes), Lengths(wholes - sources - 1)
        return [suggest_limits(self.request.layout.format, *lengths, share) for share in SHARES]


def _name(names: list[Any], name: object) -> None:
    if len(names) < _NAMED:
        names.append(name)
