"""Typing at the terminal, with keys from a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from glm3.entrypoints.cli.line_editor import LineEditor

ENTER, ESCAPE, CONTROL_C, CONTROL_D, UP, TAB = "\r", "\x1b", "\x03", "\x04", "\x1b[A", "\t"


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


def typed(keyboard: PipeInput, folder: Path, keys: str) -> str:
    keyboard.send_text(keys)
    return LineEditor(folder / "history").read("> ")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("你好" + ENTER, "你好"),
        ("one" + ESCAPE + ENTER + "two" + ENTER, "one\ntwo"),
        ("one\\" + ENTER + "two" + ENTER, "one\ntwo"),
        ('"""one' + ENTER + ENTER + 'two"""' + ENTER, "one\n\ntwo"),
        ("wrong" + CONTROL_C + "right" + ENTER, "right"),
    ],
)
def test_keys_make_messages(keyboard: PipeInput, tmp_path: Path, keys: str, message: str) -> None:
    assert typed(keyboard, tmp_path, keys) == message


@pytest.mark.parametrize(("key", "error"), [(CONTROL_C, KeyboardInterrupt), (CONTROL_D, EOFError)])
def test_leaving_keys(keyboard: PipeInput, tmp_path: Path, key: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        typed(keyboard, tmp_path, key)


def test_what_was_typed_is_remembered_across_sessions(keyboard: PipeInput, tmp_path: Path) -> None:
    assert typed(keyboard, tmp_path, "first" + ENTER) == "first"
    assert (tmp_path / "history").stat().st_mode & 0o077 == 0, "others cannot read it"
    assert typed(keyboard, tmp_path, UP + ENTER) == "first"


def test_a_history_that_cannot_be_kept_is_no_obstacle(
    keyboard: PipeInput, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert typed(keyboard, tmp_path / "file", "hi" + ENTER) == "hi"
    assert "not remembered" in capsys.readouterr().err
