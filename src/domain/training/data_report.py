"""What a data set looks like: lengths, what is cut, and the limits that would fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from glm3.domain.errors import InvalidInputError
from glm3.domain.training.row_layout import RowFormat, RowLayout

__all__ = ["Bin", "DataReport", "Lengths", "SuggestedLimits", "fault_kind", "suggest_limits"]

_MULTIPLE = 16
"""Ascend's flash attention takes sequences of a multiple of 16; the model card's 64 + 127 + 1 is one."""


@frozen
class Bin:
    """Rows of ``low`` to ``high`` tokens, both included."""

    low: int
    high: int
    rows: int


@frozen(eq=False)
class Lengths:
    """Numbers of tokens, one a row, in rising order and not empty."""

    values: NDArray[np.int64] = field(converter=np.sort)

    @property
    def longest(self) -> int:
        return int(self.values[-1])

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    def covering(self, share: float) -> int:
        """Return the smallest limit that at least this share of the rows fits into."""
        return int(self.values[max(0, int(np.ceil(share * len(self.values))) - 1)])

    def histogram(self, bins: int = 12) -> list[Bin]:
        """Count the rows in ranges of equal width."""
        low = int(self.values[0])
        width = max(1, -(-(self.longest - low + 1) // bins))
        edges = np.arange(low, self.longest + width + 1, width)
        places = np.searchsorted(self.values, edges)
        return [
            Bin(int(edges[i]), int(edges[i + 1]) - 1, int(places[i + 1] - places[i]))
            for i in range(len(edges) - 1)
        ]


@frozen(kw_only=True)
class SuggestedLimits:
    """Keys of a configuration that leave ``share`` of the prompts, and of the answers, uncut."""

    share: float
    keys: Mapping[str, int]

    @property
    def seq_length(self) -> int:
        return self.keys["seq_length"]


def suggest_limits(
    row_format: RowFormat, sources: Lengths, wholes: Lengths, targets: Lengths, share: float
) -> SuggestedLimits:
    """Return limits that fit a share of the rows and add up to a multiple of 16.

    ``sources`` and ``targets`` are prompts and answers without the end of sequence; ``wholes`` are rows.
    """
    if row_format is RowFormat.DIALOGUE:
        length = _rounded(wholes.covering(share))
        return SuggestedLimits(share=share, keys={"seq_length": length, "max_seq_length": length})
    source = sources.covering(share)
    length = _rounded(source + targets.covering(share) + 1)
    keys = {"seq_length": length, "max_source_length": source, "max_target_length": length - source - 1}
    return SuggestedLimits(share=share, keys=keys)


def _rounded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


@frozen(kw_only=True)
class DataReport:
    """Everything that was found in a file of rows.

    ``rows`` could be encoded; ``nothing_learned`` of them teach nothing but to stop. Lengths are those
    before cutting. ``faults`` are the first of ``faulty`` ones, ``fault_kinds`` counts all.
    ``duplicates`` counts rows that are encoded as an earlier one is; ``duplicate_lines`` names the first
    pairs, the earlier line second.
    """

    path: Path
    layout: RowLayout
    rows: int
    blank_lines: int
    faulty: int
    faults: Sequence[InvalidInputError]
    fault_kinds: Mapping[str, int]
    prompts_cut: int
    answers_cut: int
    nothing_learned: int
    nothing_learned_lines: Sequence[int]
    duplicates: int
    duplicate_lines: Sequence[tuple[int, int]]
    supervised_tokens: int
    lengths: Lengths | None
    suggestions: Sequence[SuggestedLimits] = ()

    @property
    def usable(self) -> bool:
        """Whether every row can be read and at least one of them teaches something."""
        return not self.faulty and self.rows > self.nothing_learned


def fault_kind(fault: InvalidInputError) -> str:
    """Return what a fault is, without what differs from row to row: positions, and what was found."""
    what = re.sub(r", character \d+ of the row$", "", fault.message)
    where = re.sub(r"\[\d+\]", "[]", fault.field or "")
    return f"{where}: {what}" if where else what
