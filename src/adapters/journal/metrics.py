"""``metrics.jsonl`` and ``metrics.csv``: one record a step and one an evaluation, safe to go on from."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.positional_io import storage_errors

__all__ = ["STEP_COLUMNS", "MetricsFiles", "read_records"]

STEP_COLUMNS = (
    "step",
    "epoch",
    "loss",
    "mean_loss",
    "grad_norm",
    "learning_rate",
    "overflow",
    "loss_scale",
    "supervised_tokens",
    "seconds",
    "tokens_per_second",
)
"""The columns of ``metrics.csv``; ``metrics.jsonl`` has records of evaluations besides."""


class MetricsFiles:
    """Write records behind those of the first ``steps_done`` steps; what an interrupted run left is dropped.

    With ``steps_done`` 0 the files of an earlier run are kept as ``metrics.1.jsonl`` and so on.
    """

    def __init__(self, folder: Path, steps_done: int) -> None:
        self._jsonl, self._csv = folder / "metrics.jsonl", folder / "metrics.csv"
        if steps_done:
            kept = [record for record in read_records(self._jsonl) if record["step"] <= steps_done]
        else:
            kept = []
            _set_aside(self._jsonl, self._csv)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for path, content in (
            (self._jsonl, "".join(map(_json_line, kept))),
            (self._csv, _csv_lines([dict(zip(STEP_COLUMNS, STEP_COLUMNS, strict=True)), *map(_flat, kept)])),
        ):
            with staged_file(path) as place:
                write_durably(place, content.encode())
        self._files = [path.open("a", encoding="utf-8", newline="") for path in (self._jsonl, self._csv)]

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record, which has a ``step``; a whole line reaches the system at once.

        Raises:
            StorageError: the file system refused.
        """
        lines = _json_line(record), _csv_lines([_flat(record)])
        for file, line, path in zip(self._files, lines, (self._jsonl, self._csv), strict=True):
            with storage_errors(path):
                file.write(line)
                file.flush()

    def close(self) -> None:
        """Close both files."""
        for file in self._files:
            file.close()


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file; its last line may be cut."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield record


def _set_aside(*paths: Path) -> None:
    number = 1
    while any(path.with_suffix(f".{number}{path.suffix}").exists() for path in paths):
        number += 1
    for path in paths:
        if path.exists():
            with storage_errors(path):
                path.rename(path.with_suffix(f".{number}{path.suffix}"))


def _json_line(record: Mapping[str, Any]) -> str:
    """Write a record; JSON has no infinity and no NaN, which an overflowing step has: they become null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"


def _flat(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out what is no column; an evaluation has none and is not in the CSV."""
    return record if "loss" in record else {}


def _csv_lines(rows: list[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, STEP_COLUMNS, extrasaction="ignore", lineterminator="\n")
    for row in rows:
        if row:
            writer.writerow(row)
    return text.getvalue()
