"""A preview shows every id with its own text and whether it is learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm3.adapters.memory.row_reader import MemoryRowFile
from glm3.application.preview_data import preview_rows
from glm3.domain.training.row_layout import RowLayout
from glm3.entrypoints.cli.data_preview import visible
from support.tokenizers import BUILDERS, EVERY_TOKENIZER

PATH = Path("rows")
ROW = {"content": "类型#上衣 a", "summary": "很好\n\t👋"}
LAYOUT = RowLayout(max_source_length=200, max_target_length=200)


@pytest.mark.parametrize("name", EVERY_TOKENIZER)
def test_pieces_are_those_of_the_row_and_the_answer_is_learned(name: str) -> None:
    tokenizer = BUILDERS[name]()
    (row,) = preview_rows(MemoryRowFile(PATH, [ROW]), LAYOUT, tokenizer, 3)
    assert row.encoded is not None
    prompt, answer = tokenizer.encode(ROW["content"]), tokenizer.encode(ROW["summary"])
    assert [token.id for token in row.tokens] == [*tokenizer.special_tokens.prefix, *prompt, *answer, 2]
    assert [token.learned for token in row.tokens] == [False] * (2 + len(prompt)) + [True] * (len(answer) + 1)
    assert [token.text for token in (*row.tokens[:2], row.tokens[-1])] == ["[gMASK]", "sop", "</s>"]
    for token, text in zip(prompt, row.tokens[2:], strict=False):
        assert tokenizer.decode([*tokenizer.special_tokens.prefix, token]).endswith(text.text)


def test_rows_are_skipped_and_counted_and_faults_shown_in_place() -> None:
    file = MemoryRowFile(PATH, [ROW, ROW, {"content": "x"}, ROW])
    rows = list(preview_rows(file, LAYOUT, BUILDERS["bytes"](), 2, skip=1))
    assert [row.line for row in rows] == [2, 3]
    assert rows[1].fault is not None
    assert (rows[1].fault.line, rows[1].fault.field, list(rows[1].tokens)) == (3, "summary", [])


def test_control_characters_of_data_do_nothing_to_the_terminal() -> None:
    assert visible("a b\n\x1b[31m\u202e好\ufffd") == "a␣b\\n\\u001b[31m\\u202e好\ufffd"
