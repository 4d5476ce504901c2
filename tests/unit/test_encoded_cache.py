"""Encoded rows are kept, found again, and never mistaken for others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from glm3.adapters.jsonl.reader import JsonRowReader
from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.application.cache_entries import turn
from glm3.application.encoded_cache import RowEncoding
from glm3.application.encoded_rows import EncodedRows
from glm3.domain.errors import StorageError
from glm3.domain.training.encoding import PairLayout
from glm3.domain.training.row_layout import RowLayout

LAYOUT = RowLayout(max_source_length=8, max_target_length=7)


class CountingTokenizer(ByteTokenizer):
    """Counts what it encodes."""

    def __init__(self, fingerprint: str = "bytes") -> None:
        super().__init__()
        self.fingerprint = fingerprint
        self.texts = 0

    def encode(self, text: str) -> list[int]:
        self.texts += 1
        return super().encode(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    lines = [json.dumps({"content": f"c{i}", "summary": "s" * (i % 12 + 1)}) for i in range(1500)]
    path.write_text("\n".join([*lines, "broken"]))
    return path


def encoding(tmp_path: Path) -> RowEncoding:
    return RowEncoding(reader=JsonRowReader(), cache=tmp_path / "cache")


def same(one: EncodedRows, other: EncodedRows) -> bool:
    names = ("input_ids", "targets", "bounds", "lines")
    return one.tally == other.tally and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in names
    )


def test_rows_are_encoded_once(tmp_path: Path, path: Path) -> None:
    tokenizer = CountingTokenizer()
    first = encoding(tmp_path).open(path, LAYOUT, tokenizer)
    assert tokenizer.texts == 3000
    again = encoding(tmp_path).open(path, LAYOUT, tokenizer)
    assert tokenizer.texts == 3000
    assert same(first, again)
    assert (again.tally.rows, again.tally.faulty, again.tally.faults()[0].line) == (1500, 1, 1501)


def test_kept_rows_are_mapped_and_not_loaded(tmp_path: Path, path: Path) -> None:
    assert isinstance(encoding(tmp_path).open(path, LAYOUT, CountingTokenizer()).input_ids, np.memmap)


def test_threads_change_nothing_that_is_kept(tmp_path: Path, path: Path) -> None:
    alone = RowEncoding(reader=JsonRowReader()).open(path, LAYOUT, ByteTokenizer())
    together = RowEncoding(reader=JsonRowReader()).open(path, LAYOUT, ByteTokenizer(), workers=8)
    assert same(alone, together)


@pytest.mark.parametrize("change", ["layout", "length", "columns", "tokenizer", "limit", "file"])
def test_whatever_shapes_the_ids_makes_them_anew(tmp_path: Path, path: Path, change: str) -> None:
    layout, limit, tokenizer = LAYOUT, None, CountingTokenizer()
    encoding(tmp_path).open(path, layout, tokenizer)
    if change == "layout":
        layout = evolve(layout, pair_layout=PairLayout.CHAT)
    elif change == "length":
        layout = evolve(layout, max_target_length=6)
    elif change == "columns":
        layout = evolve(layout, origin_columns=("summary", "content"))
    elif change == "tokenizer":
        tokenizer = CountingTokenizer("other")
    elif change == "limit":
        limit = 10
    else:
        status = path.stat()
        path.write_text(path.read_text().replace("c77", "d77"))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    before = tokenizer.texts
    encoding(tmp_path).open(path, layout, tokenizer, limit=limit)
    assert tokenizer.texts > before


def test_a_damaged_copy_is_replaced(tmp_path: Path, path: Path) -> None:
    tokenizer = CountingTokenizer()
    first = encoding(tmp_path).open(path, LAYOUT, tokenizer)
    (column,) = (tmp_path / "cache").glob("*/targets.npy")
    content = column.read_bytes()
    column.unlink()  # what is mapped stays whole
    column.write_bytes(content[:-4])
    assert same(encoding(tmp_path).open(path, LAYOUT, tokenizer), first)
    before = tokenizer.texts
    encoding(tmp_path).open(path, LAYOUT, tokenizer)
    assert tokenizer.texts == before


def test_an_interrupted_encoding_leaves_nothing_behind(tmp_path: Path, path: Path) -> None:
    class Interrupted(CountingTokenizer):
        def encode(self, text: str) -> list[int]:
            if self.texts == 1500:
                raise KeyboardInterrupt
            return super().encode(text)

    with pytest.raises(KeyboardInterrupt):
        encoding(tmp_path).open(path, LAYOUT, Interrupted())
    assert [entry.suffix for entry in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_full_disk_is_told_and_nothing_is_kept(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        encoding(tmp_path).open(path, LAYOUT, CountingTokenizer())
    assert not list((tmp_path / "cache").glob("*/input_ids.npy"))


def test_a_tokenizer_without_a_fingerprint_and_a_locked_cache_keep_nothing(
    tmp_path: Path, path: Path
) -> None:
    assert len(encoding(tmp_path).open(path, LAYOUT, ByteTokenizer())) == 1500
    assert not (tmp_path / "cache").exists()
    (tmp_path / "file").write_text("")
    blocked = RowEncoding(reader=JsonRowReader(), cache=tmp_path / "file" / "cache")
    assert len(blocked.open(path, LAYOUT, CountingTokenizer())) == 1500


def entries(tmp_path: Path) -> dict[Path, int]:
    """Return the kept encodings with their sizes, those used longest ago first."""
    folders = [folder for folder in (tmp_path / "cache").iterdir() if folder.is_dir()]
    folders.sort(key=lambda folder: folder.stat().st_mtime_ns)
    return {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}


def open_three(tmp_path: Path, path: Path, cache_bytes: int = 10**9) -> None:
    """Keep 100, 200 and 300 rows of a file, and use the first again."""
    bounded = evolve(encoding(tmp_path), cache_bytes=cache_bytes)
    for limit in (100, 200, 300, 100):
        bounded.open(path, LAYOUT, CountingTokenizer(), limit=limit)


def test_what_was_not_used_for_longest_goes_when_the_cache_is_full(tmp_path: Path, path: Path) -> None:
    open_three(tmp_path, path)
    (second, *_), sizes = entries(tmp_path), list(entries(tmp_path).values())
    small = evolve(encoding(tmp_path), cache_bytes=sum(sizes) + 1)
    small.open(path, LAYOUT, CountingTokenizer(), limit=50)
    left = entries(tmp_path)
    assert second not in left
    assert len(left) == 3
    assert not second.with_suffix(".lock").exists()


def test_rows_that_exceed_the_cache_alone_are_kept_and_found(tmp_path: Path, path: Path) -> None:
    tokenizer = CountingTokenizer()
    tiny = evolve(encoding(tmp_path), cache_bytes=1)
    first = tiny.open(path, LAYOUT, tokenizer)
    before = tokenizer.texts
    assert same(tiny.open(path, LAYOUT, tokenizer), first)
    assert tokenizer.texts == before
    tiny.open(path, LAYOUT, tokenizer, limit=10)
    assert len(entries(tmp_path)) == 1
    assert first.input_ids[:4].tolist() == tiny.open(path, LAYOUT, tokenizer).input_ids[:4].tolist()


def test_rows_that_another_process_works_on_are_left_alone(tmp_path: Path, path: Path) -> None:
    open_three(tmp_path, path)
    oldest = next(iter(entries(tmp_path)))
    with turn(oldest):  # as another process would: locks belong to open files
        evolve(encoding(tmp_path), cache_bytes=1).open(path, LAYOUT, CountingTokenizer(), limit=50)
        assert oldest in entries(tmp_path)
    assert len(entries(tmp_path)) == 2


def test_a_killed_encoding_of_other_rows_goes_too(tmp_path: Path, path: Path) -> None:
    (tmp_path / "cache").mkdir()
    left = tmp_path / "cache" / f".{'0' * 32}.01234567.partial"
    left.mkdir()
    encoding(tmp_path).open(path, LAYOUT, CountingTokenizer())
    assert not left.exists()
