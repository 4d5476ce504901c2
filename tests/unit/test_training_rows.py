"""Rows from a file to batches: what is skipped is counted, where a row stands is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from glm3.adapters.jsonl.lines import read_rows
from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.application.row_sources import RowsRequest
from glm3.application.training_rows import EncodedRows, RowSource
from glm3.domain.errors import InvalidInputError, MissingFileError, MultipleFaultsError
from glm3.domain.run_config.data import DataLoaderConfig, DatasetConfig
from glm3.domain.training.batch_plan import BatchPlan

GOOD = [{"content": f"c{i}", "summary": f"s{i}"} for i in range(6)]


def dataset(path: Path | str, **loader: object) -> DatasetConfig:
    return DatasetConfig(
        data_loader=DataLoaderConfig(dataset_dir=str(path), **loader),
        max_source_length=8,
        max_target_length=7,
        max_seq_length=40,
    )


def open_rows(path: Path | str, *, strict: bool = False, passes: int = 1, **loader: object) -> EncodedRows:
    request = RowsRequest(
        dataset=dataset(path, **loader),
        tokenizer=ByteTokenizer(),
        batch=BatchPlan(rows_per_pass=2, passes=passes, data_ranks=1),
        strict=strict,
    )
    return RowSource(read_rows, Path(path).parent).training(request)


def written(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "rows.json"
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return path


def test_steps_hold_the_rows_of_their_places(tmp_path: Path) -> None:
    rows = open_rows(written(tmp_path, *GOOD), passes=2, shuffle=False)
    first, second = rows.micro_batches(0)
    assert rows.steps_per_epoch == 1
    assert first.input_ids.shape == second.targets.shape == (2, 16)
    assert [place.line for place in rows.places(0)] == [1, 2, 3, 4]
    other = open_rows(written(tmp_path, *GOOD[2:]), shuffle=False)
    assert np.array_equal(second.input_ids, other.micro_batches(0)[0].input_ids)


def test_bad_rows_are_skipped_counted_and_the_first_is_shown(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD[0], b"{broken", b"\xff\xfe", {"content": "only"}, b"", GOOD[1])
    rows = open_rows(path)
    assert list(rows.lines) == [1, 6]
    (note,) = rows.notes
    assert note.startswith(f"3 rows of {path} are skipped")
    assert f"{path}:2" in note


def test_strict_refuses_all_of_them_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD, {"content": "only"}, b"[")
    with pytest.raises(MultipleFaultsError) as caught:
        open_rows(path, strict=True)
    assert [(fault.line, fault.field) for fault in caught.value.faults] == [(7, "summary"), (8, None)]


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="holds no row"):
        open_rows(path)


def test_a_file_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MultipleFaultsError, match="2 of 2 rows"):
        open_rows(written(tmp_path, {"a": 1}, {"b": 2}))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere"):
        open_rows(tmp_path / "nowhere.json")


def test_a_byte_order_mark_and_an_array_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert open_rows(path).num_rows == 6
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(json.dumps(row).encode() for row in GOOD))
    assert list(open_rows(path).lines) == [1, 2, 3, 4, 5, 6]


def test_cut_rows_are_counted(tmp_path: Path) -> None:
    long = {"content": "c" * 50, "summary": "s" * 50}
    notes = open_rows(written(tmp_path, *GOOD, long)).notes
    assert any(note.startswith("1 of 7 rows") and "are cut" in note for note in notes)


def test_dialogues_whose_answer_is_cut_away_are_counted(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "u" * 60}, {"role": "assistant", "content": "a"}]
    short = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    path = written(tmp_path, *({"conversations": t} for t in (turns, short, short)))
    rows = open_rows(path, type="ToolAlpacaDataLoader")
    assert any(note.startswith("1 of 3 rows") and "nothing to learn" in note for note in rows.notes)


def test_the_first_samples_only(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD)
    assert open_rows(path, num_samples=4).num_rows == 4
    source = RowSource(read_rows, tmp_path)
    assert len(source.pairs(dataset(path, num_samples=3), strict=False).rows) == 3


def test_a_builtin_name_is_a_file_of_the_package(tmp_path: Path) -> None:
    written(tmp_path, *GOOD)
    source = RowSource(read_rows, tmp_path)
    pairs = source.pairs(dataset("builtin:rows"), strict=True)
    assert [pair.target for pair in pairs.rows] == [row["summary"] for row in GOOD]
    assert evolve(pairs.rows[0], target="x").source == "c0"
