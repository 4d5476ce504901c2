"""Saved conversations and tool lists."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.domain.conversation import Message, Role
from glm3.domain.errors import InvalidInputError, MissingFileError, StorageError
from glm3.entrypoints.cli import transcript

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LINES = TEXTS.filter(lambda text: "\n" not in text)


@settings(deadline=None)  # every example writes and syncs a file
@given(TEXTS, st.lists(st.tuples(TEXTS, LINES, TEXTS), max_size=4))
def test_what_is_saved_is_loaded(tmp_path_factory, system: str, turns: list[tuple[str, str, str]]) -> None:
    path: Path = tmp_path_factory.mktemp("saved") / "chat.json"
    messages = [Message(Role.SYSTEM, system, tools=({"name": "查询", "parameters": {}},))]
    for question, metadata, answer in turns:
        messages += [Message(Role.USER, question), Message(Role.ASSISTANT, answer, metadata)]
    transcript.save(path, messages)
    assert transcript.load(path) == messages


def test_the_file_is_readable_json(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "chat.json"
    transcript.save(path, [Message(Role.USER, "你好"), Message(Role.ASSISTANT, "ok", "tool")])
    text = path.read_text(encoding="utf-8")
    assert "你好" in text
    assert json.loads(text) == [
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "ok", "metadata": "tool"},
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[{", ["not JSON"]),
        ("{}", ["a JSON list of messages"]),
        ("[1]", ["[0]", "not a message"]),
        ('[{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]', ["[1].role", "robot"]),
        ('[{"role": "user"}]', ["[0].content", "missing"]),
        ('[{"role": "user", "content": 3}]', ["[0].content", "text"]),
        ('[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]', ["[1].role", "first"]),
        ('[{"role": "observation", "content": "a"}]', ["[0].role", "tool call"]),
        ("[" * 100_000, ["not JSON"]),
    ],
)
def test_a_wrong_file_is_refused_with_path_and_place(tmp_path: Path, content: str, words: list[str]) -> None:
    path = tmp_path / "chat.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError) as caught:
        transcript.load(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="UTF-8"):
        transcript.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"absent\.json"):
        transcript.load(tmp_path / "absent.json")


def test_a_place_that_may_not_be_written_is_a_storage_error() -> None:
    """Not even root may create files in the kernel's own file system."""
    with pytest.raises(StorageError):
        transcript.save(Path("/sys/glm3-test/chat.json"), [Message(Role.USER, "x")])


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chat.json"
    transcript.save(path, [Message(Role.USER, "old")])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError):
        transcript.save(path, [Message(Role.USER, "new")])
    assert transcript.load(path) == [Message(Role.USER, "old")]
    assert [file.name for file in tmp_path.iterdir()] == ["chat.json"]


def test_a_folder_in_the_place_of_a_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        transcript.save(tmp_path, [Message(Role.USER, "x")])
    with pytest.raises(StorageError):
        transcript.load(tmp_path)


def test_tools_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_text('[{"name": "weather", "description": "天气", "parameters": {}}]', encoding="utf-8")
    assert transcript.load_tools(path) == [{"name": "weather", "description": "天气", "parameters": {}}]


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"name": "x"}', ["a JSON list of tools"]), ("[3]", ["[0]"]), ('[{"name": ""}]', ["[0].name"])],
)
def test_wrong_tools_are_refused(tmp_path: Path, content: str, words: list[str]) -> None:
    path = tmp_path / "tools.json"
    path.write_text(content)
    with pytest.raises(InvalidInputError) as caught:
        transcript.load_tools(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)
