"""Encoding many texts at once gives the rows that encoding one by one gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.memory.row_reader import MemoryRowFile
from glm3.application.encode_rows import encode_chunks
from glm3.domain.errors import TokenizerError
from glm3.domain.ports.tokenizer import SupportsBatch, Tokenizer
from glm3.domain.training.encoding import PairLayout
from glm3.domain.training.row_layout import RowFormat, RowLayout
from support.tokenizers import some_text, trained


@define
class OneByOne:
    """The same tokenizer without its batches."""

    tokenizer: Tokenizer

    @property
    def special_tokens(self) -> Any:
        return self.tokenizer.special_tokens

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def decode(self, ids: Any, *, skip_special_tokens: bool = False) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


text = some_text.filter(str.strip)
pairs = st.fixed_dictionaries({"content": text, "summary": text | st.just("")})
turns = st.tuples(text, text, text).map(
    lambda said: [
        {"role": "user", "content": said[0]},
        {"role": "tool", "name": "f", "parameters": {"k": said[1]}, "observation": said[1]},
        {"role": "assistant", "content": said[2]},
    ]
)
dialogues = turns.map(lambda said: {"conversations": said, "tools": ["a tool"]})
layouts = st.sampled_from(
    [
        RowLayout(max_source_length=20, max_target_length=20),
        RowLayout(max_source_length=20, max_target_length=20, pair_layout=PairLayout.CHAT),
        RowLayout(format=RowFormat.DIALOGUE, max_seq_length=150),
    ]
)


@settings(deadline=None)
@given(st.lists(pairs, max_size=6), st.lists(dialogues, max_size=3), layouts, st.sampled_from([1, 3]))
def test_batches_change_nothing(
    some_pairs: list[Any], some_dialogues: list[Any], layout: RowLayout, workers: int
) -> None:
    assert isinstance(trained(), SupportsBatch)
    assert not isinstance(OneByOne(trained()), SupportsBatch)
    file = MemoryRowFile(Path("rows"), [*some_pairs, *some_dialogues, *some_pairs])
    together = list(encode_chunks(file, layout, trained(), workers=workers))
    alone = list(encode_chunks(file, layout, OneByOne(trained())))
    assert len(together) == len(alone)
    for one, other in zip(together, alone, strict=True):
        assert one.lines == other.lines
        assert [str(fault) for fault in one.faults] == [str(fault) for fault in other.faults]
        for row, same in zip(one.rows, other.rows, strict=True):
            assert np.array_equal(row.input_ids, same.input_ids)
            assert np.array_equal(row.targets, same.targets)


@given(st.lists(some_text, max_size=8), st.sampled_from([1, 3]))
def test_a_batch_of_texts_is_each_text(texts: list[str], threads: int) -> None:
    assert trained().encode_batch(texts, threads) == [trained().encode(text) for text in texts]


def test_half_a_surrogate_pair_in_a_batch_is_refused() -> None:
    with pytest.raises(TokenizerError, match="Unicode"):
        trained().encode_batch(["a", "\ud800"])


def test_a_row_that_only_the_tokenizer_refuses_is_a_fault_of_its_own() -> None:
    """Tools are JSON and may hold anything; the rows beside it are encoded."""
    said = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    rows = [{"conversations": said}, {"conversations": said, "tools": ["\ud800"]}, {"conversations": said}]
    file = MemoryRowFile(Path("rows"), rows)
    layout = RowLayout(format=RowFormat.DIALOGUE, max_seq_length=150)
    (chunk,) = encode_chunks(file, layout, trained())
    assert chunk.lines == [1, 3]
    assert [(fault.path, fault.line) for fault in chunk.faults] == [(Path("rows"), 2)]


def test_chunks_are_reported_and_a_limit_is_kept() -> None:
    file = MemoryRowFile(Path("rows"), [{"content": "c", "summary": "s"}] * 2500)
    seen: list[tuple[int, int]] = []
    chunks = encode_chunks(
        file, RowLayout(), OneByOne(trained()), limit=2100, report=lambda *done: seen.append(done)
    )
    assert sum(len(chunk.rows) for chunk in chunks) == 2100
    assert seen[-1] == (2100, 2100)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
