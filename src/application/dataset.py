"""Data sets of a run: their files, and their rows as the batches of every step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from glm3.application.encode_rows import ReportRows
from glm3.application.encoded_cache import RowEncoding
from glm3.application.encoded_rows import EncodedRows, RowTally
from glm3.application.row_sources import Pairs, RowsRequest
from glm3.domain.errors import InvalidInputError, MultipleFaultsError, UsageError
from glm3.domain.ports.training import MicroBatch
from glm3.domain.run_config.data import DatasetConfig
from glm3.domain.training.encoding import PairLayout
from glm3.domain.training.row_layout import RowLayout
from glm3.domain.training.rows import PairRow, parse_pair
from glm3.domain.training.run_guard import RowPlace
from glm3.domain.training.sampling_order import SamplingOrder

__all__ = ["BUILTIN_PREFIX", "DatasetOpener", "EncodedDataset", "find_rows"]

BUILTIN_PREFIX = "builtin:"


def find_rows(name: str | Path, builtin: Path) -> Path:
    """Return the file that ``name`` means: a path, or ``builtin:NAME`` for ``NAME.json`` in ``builtin``.

    Raises:
        UsageError: there are no such rows in this package.
    """
    text = str(name)
    if not text.startswith(BUILTIN_PREFIX):
        return Path(name)
    path = builtin / f"{text.removeprefix(BUILTIN_PREFIX)}.json"
    if path.parent != builtin or not path.is_file():
        known = ", ".join(f"{BUILTIN_PREFIX}{found.stem}" for found in sorted(builtin.glob("*.json")))
        raise UsageError("no such built-in rows", expected=known or "none are here", found=text)
    return path


@frozen(kw_only=True)
class EncodedDataset:
    """Rows dealt to steps; see :class:`glm3.application.row_sources.TrainingRows`.

    Batches always have the full shape, the short last one of an epoch included: what no row fills learns
    nothing, and a compiled step meets one shape only. All ranks make the same number of passes.
    """

    rows: EncodedRows
    path: Path
    order: SamplingOrder
    rows_per_pass: int
    seq_length: int
    notes: Sequence[str] = ()

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    def micro_batches(self, step: int) -> list[MicroBatch]:
        chosen = self.order.rows(step)
        size = self.rows_per_pass
        of_first_rank = -(-self.order.rows_of_all_ranks(step) // self.order.world_size)
        return [
            self.rows.micro_batch(chosen[start : start + size].tolist(), size, self.seq_length)
            for start in range(0, of_first_rank, size)
        ]

    def places(self, step: int) -> list[RowPlace]:
        return [RowPlace(self.path, int(self.rows.lines[row])) for row in self.order.rows(step)]


@frozen(kw_only=True)
class DatasetOpener:
    """Open the data sets that a run's file names; ``builtin`` is the folder of rows inside this package."""

    encoding: RowEncoding
    builtin: Path
    layout: PairLayout = PairLayout.BARE
    report: ReportRows = lambda _done, _total: None

    def training(self, request: RowsRequest) -> EncodedDataset:
        """Return the rows to train on; see :class:`glm3.application.row_sources.OpenRows`.

        Rows that cannot be used are left out and noted.

        Raises:
            MissingFileError, UsageError: there is no such file.
            InvalidInputError: no row is usable, or too few for one batch; or, as MultipleFaultsError with the
                first of them, ``strict`` and a row that would be left out.
            ConfigError: the shares are not for groups of as many ranks each.
        """
        dataset = request.dataset
        path = find_rows(dataset.data_loader.dataset_dir or "", self.builtin)
        layout = RowLayout.of(dataset, self.layout)
        rank, ranks = request.share
        rows = self.encoding.open(
            path,
            layout,
            request.tokenizer,
            limit=dataset.data_loader.num_samples,
            workers=dataset.num_parallel_workers,
            report=self.report,
        )
        _judge(rows.tally, path, strict=request.strict)
        order = SamplingOrder(
            num_rows=len(rows),
            global_batch=request.batch.global_batch,
            seed=dataset.seed,
            shuffle=dataset.data_loader.shuffle,
            drop_remainder=dataset.drop_remainder,
            rank=rank,
            world_size=ranks,
        )
        return EncodedDataset(
            rows=rows,
            path=path,
            order=order,
            rows_per_pass=request.batch.rows_per_pass,
            seq_length=layout.seq_length,
            notes=_notes(rows.tally, path),
        )

    def pairs(self, dataset: DatasetConfig, *, strict: bool) -> Pairs:
        """Return prompts and answers as text; see :class:`glm3.application.row_sources.OpenPairs`.

        Raises:
            MissingFileError, UsageError, InvalidInputError: as :meth:`training`.
        """
        path = find_rows(dataset.data_loader.dataset_dir or "", self.builtin)
        file = self.encoding.reader.open(path)
        tally = RowTally(blank_lines=file.blank_lines, first_faults=[])
        pairs: list[PairRow] = []
        for row in file.read_rows(0, dataset.data_loader.num_samples):
            try:
                if row.fault is not None:
                    raise row.fault
                pairs.append(parse_pair(row.value, dataset.data_loader.origin_columns))
            except InvalidInputError as error:
                error.path, error.line = path, error.line or row.line
                tally.faulty += 1
                tally.count(error)
        tally.rows = len(pairs)
        _judge(tally, path, strict=strict)
        return Pairs(pairs, _notes(tally, path))


def _judge(tally: RowTally, path: Path, *, strict: bool) -> None:
    if tally.rows and not (strict and tally.left_out):
        return
    if not tally.left_out:
        raise InvalidInputError("holds no row", path=path, expected="one JSON object a line, or a JSON array")
    summary = f"{tally.left_out} of {tally.rows + tally.left_out} rows of {path} cannot be used"
    shown = tally.faults()
    if len(shown) < tally.left_out:
        summary += f"; the first {len(shown)}"
    raise MultipleFaultsError(f"{summary}:", shown)


def _notes(tally: RowTally, path: Path) -> list[str]:
    notes = []
    if tally.left_out:
        first = str(tally.faults()[0]).splitlines()[0]
        total = tally.rows + tally.left_out
        notes.append(f"{tally.left_out} of {total} rows of {path} are left out; the first: {first}")
    if tally.answers_cut:
        notes.append(f"{tally.answers_cut} of {tally.rows} answers are cut to their limit")
    if tally.prompts_cut:
        notes.append(f"{tally.prompts_cut} of {tally.rows} prompts are cut to their limit")
    return notes
