"""Rows from a file to the batches of every step: what is left out is counted, where a row stands is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.jsonl.reader import JsonRowReader
from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.row_reader import MemoryRowReader
from glm3.application.dataset import DatasetOpener, EncodedDataset, find_rows
from glm3.application.encoded_cache import RowEncoding
from glm3.application.row_sources import RowsRequest
from glm3.domain.errors import (
    ConfigError,
    InvalidInputError,
    MissingFileError,
    MultipleFaultsError,
    UsageError,
)
from glm3.domain.run_config.data import DataLoaderConfig, DatasetConfig
from glm3.domain.training.batch_plan import BatchPlan
from glm3.domain.training.encoding import IGNORE, PairEncoder, PairLayout
from glm3.domain.training.rows import PairRow

GOOD = [{"content": f"c{i}", "summary": f"s{i}"} for i in range(6)]
TOKENIZER = ByteTokenizer()


def dataset(path: Path | str, *, drop_remainder: bool = True, **loader: object) -> DatasetConfig:
    return DatasetConfig(
        data_loader=DataLoaderConfig(dataset_dir=str(path), **loader),
        max_source_length=8,
        max_target_length=7,
        max_seq_length=40,
        drop_remainder=drop_remainder,
    )


def request(
    config: DatasetConfig, *, strict: bool = False, passes: int = 1, ranks: int = 1, rank: int = 0
) -> RowsRequest:
    return RowsRequest(
        dataset=config,
        tokenizer=TOKENIZER,
        batch=BatchPlan(rows_per_pass=2, passes=passes, data_ranks=ranks),
        rank=rank,
        world_size=ranks,
        strict=strict,
    )


def opener(builtin: Path, layout: PairLayout = PairLayout.BARE) -> DatasetOpener:
    return DatasetOpener(encoding=RowEncoding(reader=JsonRowReader()), builtin=builtin, layout=layout)


def open_rows(path: Path | str, *, strict: bool = False, **loader: object) -> EncodedDataset:
    return opener(Path(path).parent).training(request(dataset(path, **loader), strict=strict))


def written(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "rows.json"
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return path


def test_steps_hold_the_rows_of_their_places_encoded(tmp_path: Path) -> None:
    config = dataset(written(tmp_path, *GOOD), shuffle=False)
    rows = opener(tmp_path).training(request(config, passes=2))
    batches = rows.micro_batches(0)
    assert rows.steps_per_epoch == 1
    assert [place.line for place in rows.places(0)] == [1, 2, 3, 4]
    encoder = PairEncoder(TOKENIZER, 8, 7)
    expected = [encoder.encode(PairRow(row["content"], row["summary"])) for row in GOOD[:4]]
    for index, row in enumerate(expected):
        batch = batches[index // 2]
        assert np.array_equal(batch.input_ids[index % 2], row.input_ids)
        assert np.array_equal(batch.targets[index % 2], row.targets)


def test_a_chat_layout_is_asked_for_by_the_opener(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD)
    rows = opener(tmp_path, PairLayout.CHAT).training(request(dataset(path)))
    assert (rows.micro_batches(0)[0].input_ids[:, 2] == TOKENIZER.special_tokens.user).all()


@settings(deadline=None)  # files are written
@given(count=st.integers(1, 23), ranks=st.integers(1, 3), passes=st.integers(1, 3), drop=st.booleans())
def test_all_ranks_together_take_every_row_of_a_step_once_in_passes_of_one_shape(
    count: int, ranks: int, passes: int, drop: bool
) -> None:
    path = Path("rows")
    reader = MemoryRowReader({path: [{"content": f"c{i}", "summary": f"s{i}"} for i in range(count)]})
    rows_of = DatasetOpener(encoding=RowEncoding(reader=reader), builtin=Path("nowhere"))
    config = dataset(path, drop_remainder=drop)
    if drop and count < 2 * passes * ranks:
        with pytest.raises(InvalidInputError, match="too few rows"):
            rows_of.training(request(config, passes=passes, ranks=ranks))
        return
    shares = [rows_of.training(request(config, passes=passes, ranks=ranks, rank=r)) for r in range(ranks)]
    for step in range(shares[0].steps_per_epoch):
        batches = [share.micro_batches(step) for share in shares]
        places = [place.line for share in shares for place in share.places(step)]
        assert len(set(places)) == len(places)
        assert len({len(own) for own in batches}) == 1
        assert {batch.input_ids.shape for own in batches for batch in own} == {(2, 16)}
        filled = sum(int((batch.targets != IGNORE).any(axis=1).sum()) for own in batches for batch in own)
        assert filled == len(places)
        assert all((batch.targets != IGNORE).any() for batch in batches[0])


def test_bad_rows_are_left_out_counted_and_the_first_is_shown(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD[0], b"{broken", b"\xff\xfe", {"content": "only"}, b"", GOOD[1])
    rows = open_rows(path)
    assert rows.rows.lines.tolist() == [1, 6]
    assert rows.rows.tally.blank_lines == 1
    (note,) = rows.notes
    assert note.startswith(f"3 of 5 rows of {path} are left out")
    assert f"{path}:2" in note


def test_one_bad_row_in_many_does_not_stop_a_run_unless_it_is_strict(tmp_path: Path) -> None:
    rows: list[object] = [{"content": f"c{i}", "summary": f"s{i}"} for i in range(2000)]
    rows[1234] = {"content": "c", "summmary": "s"}
    path = written(tmp_path, *rows)
    assert open_rows(path).num_rows == 1999
    with pytest.raises(MultipleFaultsError, match="1 of 2000 rows") as caught:
        open_rows(path, strict=True)
    (fault,) = caught.value.faults
    assert (fault.path, fault.line, fault.field) == (path, 1235, "summary")


def test_strict_refuses_all_of_them_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD, {"content": "only"}, b"[")
    with pytest.raises(MultipleFaultsError) as caught:
        open_rows(path, strict=True)
    assert [(fault.line, fault.field) for fault in caught.value.faults] == [(7, "summary"), (8, None)]


def test_of_very_many_faults_the_first_are_told(tmp_path: Path) -> None:
    with pytest.raises(MultipleFaultsError, match=r"900 of 900 rows .*; the first 20:") as caught:
        open_rows(written(tmp_path, *[{}] * 900))
    assert [fault.line for fault in caught.value.faults] == list(range(1, 21))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", b"[]"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="holds no row"):
        open_rows(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere"):
        open_rows(tmp_path / "nowhere.json")


def test_cut_prompts_and_answers_are_counted_apart(tmp_path: Path) -> None:
    long_prompt = {"content": "c" * 50, "summary": "s"}
    long_both = {"content": "c" * 50, "summary": "s" * 50}
    assert open_rows(written(tmp_path, *GOOD, long_prompt, long_both)).notes == [
        "1 of 8 answers are cut to their limit",
        "2 of 8 prompts are cut to their limit",
    ]


def conversation(question: str) -> dict[str, object]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "a"}]
    return {"conversations": turns}


def test_a_dialogue_whose_answer_is_cut_away_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, conversation("u" * 60), conversation("u"), conversation("v"))
    rows = open_rows(path, type="ToolAlpacaDataLoader")
    assert rows.rows.lines.tolist() == [2, 3]
    assert "nothing is learned from this row" in rows.notes[0]
    with pytest.raises(MultipleFaultsError, match="1 of 3"):
        open_rows(path, type="ToolAlpacaDataLoader", strict=True)


class UnknowingTokenizer(ByteTokenizer):
    """Knows nothing: every id is the unknown piece, which also pads."""

    def encode(self, text: str) -> list[int]:
        return [0] * len(text)


def test_labels_of_nothing_but_pads_are_refused(tmp_path: Path) -> None:
    wanted = RowsRequest(
        dataset=dataset(written(tmp_path, *GOOD)),
        tokenizer=UnknowingTokenizer(),
        batch=BatchPlan(rows_per_pass=2, passes=1, data_ranks=1),
    )
    with pytest.raises(MultipleFaultsError, match="6 of 6 rows"):
        opener(tmp_path).training(wanted)


def test_the_first_samples_only(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD)
    assert open_rows(path, num_samples=4).num_rows == 4
    assert len(opener(tmp_path).pairs(dataset(path, num_samples=3), strict=False).rows) == 3


def test_pairs_for_an_evaluation_are_checked_as_rows_to_train_on_are(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD, {"content": "only"})
    pairs = opener(tmp_path).pairs(dataset(path), strict=False)
    assert [(row.source, row.target) for row in pairs.rows] == [(r["content"], r["summary"]) for r in GOOD]
    assert "1 of 7 rows" in pairs.notes[0]
    with pytest.raises(MultipleFaultsError, match="1 of 7"):
        opener(tmp_path).pairs(dataset(path), strict=True)


def test_a_builtin_name_is_a_file_of_the_package(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD)
    assert find_rows("builtin:rows", tmp_path) == path
    assert find_rows("some/rows.json", tmp_path) == Path("some/rows.json")
    assert open_rows_by_name(tmp_path, "builtin:rows").num_rows == 6


def open_rows_by_name(builtin: Path, name: str) -> EncodedDataset:
    return opener(builtin).training(request(dataset(name)))


@pytest.mark.parametrize("name", ["builtin:other", "builtin:../rows", "builtin:"])
def test_an_unknown_builtin_name_is_answered_with_the_known_ones(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    written(tmp_path, *GOOD)
    written(folder, *GOOD)
    with pytest.raises(UsageError, match="expected builtin:rows"):
        find_rows(name, folder)


def shared_rows(tmp_path: Path, rank: int, world_size: int) -> RowsRequest:
    return RowsRequest(
        dataset=dataset(written(tmp_path, *GOOD)),
        tokenizer=TOKENIZER,
        batch=BatchPlan(rows_per_pass=1, passes=1, data_ranks=2),
        rank=rank,
        world_size=world_size,
    )


def test_ranks_that_share_matrices_take_the_same_rows(tmp_path: Path) -> None:
    taken = [
        [batch.input_ids.tolist() for batch in opener(tmp_path).training(wanted).micro_batches(0)]
        for wanted in (shared_rows(tmp_path, rank, 4) for rank in range(4))
    ]
    assert taken[0] == taken[1] != taken[2] == taken[3]


def test_ranks_that_share_rows_in_another_way_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data_parallel"):
        opener(tmp_path).training(shared_rows(tmp_path, 0, 3))
