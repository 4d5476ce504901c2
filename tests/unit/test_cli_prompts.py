"""Prompts of a batch, and its result file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.domain.errors import UsageError
from glm3.entrypoints.cli.prompts import looks_like_a_missing_file, prompts_in_file, prompts_of, write_result


@pytest.mark.parametrize(
    ("values", "prompts"),
    [
        (["你好"], ["你好"]),
        ([r"a\nb"], ["a\nb"]),
        ([r"a\nb", "c"], [r"a\nb", "c"]),
        (["x" * 5000], ["x" * 5000]),
        (["a\0b"], ["a\0b"]),
    ],
)
def test_one_value_may_have_written_out_line_breaks(values: list[str], prompts: list[str]) -> None:
    """The model card replaces them in a single text only. A text longer than any path is no error."""
    assert prompts_of(values) == prompts


def test_a_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("你好\r\n\r\n  \nfirst\\nsecond\nlast".encode())
    assert prompts_of([str(path)]) == prompts_in_file(path) == ["你好", "first\nsecond", "last"]


def test_several_values_are_never_files(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("inside")
    assert prompts_of([str(path), "b"]) == [str(path), "b"]


def test_a_folder_is_no_prompt(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        prompts_of([str(tmp_path)])


@settings(deadline=None)  # every example writes and syncs a file
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_the_result_file_is_a_list_that_python_reads_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("result") / "r.txt"
    write_result(path, texts)
    assert ast.literal_eval(path.read_text(encoding="utf-8")) == texts


def test_a_name_of_a_file_that_is_not_there_is_noticed(tmp_path: Path) -> None:
    missing = str(tmp_path / "prompts.txt")
    assert looks_like_a_missing_file([missing])
    Path(missing).write_text("hello")
    assert not looks_like_a_missing_file([missing])
    assert not looks_like_a_missing_file(["你好"])
    assert not looks_like_a_missing_file(["a.txt", "b.txt"]), "several values are prompts"
