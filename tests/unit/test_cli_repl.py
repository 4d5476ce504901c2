"""The interactive chat, with a scripted model and a scripted user."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from glm3.application.chat import ChatSession
from glm3.domain.conversation import FinishReason, Role
from glm3.domain.errors import UsageError
from glm3.entrypoints.cli.repl import chat_loop, stream_answer
from glm3.entrypoints.cli.slash import COMMANDS, LeaveChat, obey
from support.scripted_chat import scripted_chat

CALL = "weather\n ```python\ntool_call(city='北京')\n```"
TOOLS = [{"name": "weather", "parameters": {}}]


class ScriptedReader:
    """Types the given lines; ``prompts`` keeps what was asked."""

    def __init__(self, *lines: str | BaseException) -> None:
        self._lines = iter(lines)
        self.prompts: list[str] = []

    def read(self, prompt: str) -> str:
        self.prompts.append(prompt)
        line = next(self._lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line


def roles(session: ChatSession) -> list[str]:
    return [message.role.value for message in session.messages]


def test_answers_are_printed_and_the_prompt_counts_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    session, reader = scripted_chat("\n 你好！", "\n 再见"), ScriptedReader("你好", "再见")
    chat_loop(session, reader)
    assert capsys.readouterr().out == "你好！\n再见\n"
    assert roles(session) == ["user", "assistant"] * 2
    used = [int(prompt.removeprefix("[").partition("/")[0]) for prompt in reader.prompts]
    assert used == sorted(set(used)), "the counter grows with every turn"
    assert reader.prompts[0] == "[0/4096] you> "


@pytest.mark.parametrize("leave", [EOFError(), KeyboardInterrupt(), "/exit"])
def test_leaving(leave: str | BaseException) -> None:
    session, reader = scripted_chat(), ScriptedReader(leave, "never read")
    chat_loop(session, reader)
    assert len(reader.prompts) == 1
    assert session.messages == ()


def test_an_error_is_shown_and_the_conversation_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    session = scripted_chat("\n ok", seq_length=64)
    chat_loop(session, ScriptedReader("x" * 100, "/bogus", "hi"))
    shown = capsys.readouterr()
    assert shown.out == "ok\n"
    assert "too long for the model's context" in shown.err
    assert "/bogus" in shown.err
    assert roles(session) == ["user", "assistant"]


def test_a_tool_call_is_answered_with_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    session = scripted_chat(CALL, "\n 北京晴天", tools=TOOLS)
    reader = ScriptedReader("北京天气", '{"t": 20}')
    chat_loop(session, reader)
    call, text = capsys.readouterr().out.splitlines()
    assert json.loads(call) == {"tool": "weather", "arguments": {"city": "北京"}}
    assert text == "北京晴天"
    assert reader.prompts[1].endswith("weather> ")
    assert roles(session) == ["system", "user", "assistant", "observation", "assistant"]


def test_code_to_run_is_shown_and_its_output_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    session, reader = scripted_chat("interpreter\n ```python\nprint(6 * 7)\n```"), ScriptedReader("6 * 7?")
    chat_loop(session, reader)
    assert "print(6 * 7)" in capsys.readouterr().out
    assert reader.prompts[1].endswith("interpreter> ")


def test_a_tools_result_may_be_refused() -> None:
    session = scripted_chat(CALL, "\n ok", tools=TOOLS)
    chat_loop(session, ScriptedReader("北京天气", "", "never mind"))
    assert roles(session)[-2:] == ["user", "assistant"]


def test_control_c_stops_the_answer_and_keeps_the_partial_turn(capsys: pytest.CaptureFixture[str]) -> None:
    session = scripted_chat("\n abcdefghij" * 20)
    seen: list[str] = []
    original = session.stream

    def interrupted(text: str, *, role: Role) -> Iterator[object]:
        for part in original(text, role=role):
            seen.append(str(part))
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield part

    session.stream = interrupted  # type: ignore[method-assign,assignment]
    before = signal.getsignal(signal.SIGINT)
    reply = stream_answer(session, "go")
    assert signal.getsignal(signal.SIGINT) is before
    assert reply.finish_reason is FinishReason.CANCELLED
    assert 0 < len(reply.text) < 50
    assert session.messages[-1].content.strip() == reply.text
    shown = capsys.readouterr()
    assert shown.out == reply.text + "\n"
    assert "[stopped]" in shown.err


def test_a_second_control_c_leaves() -> None:
    session = scripted_chat("\n abcdefghij" * 20)
    original = session.stream

    def twice(text: str, *, role: Role) -> Iterator[object]:
        for count, part in enumerate(original(text, role=role)):
            if count == 2:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            yield part

    session.stream = twice  # type: ignore[method-assign,assignment]
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        chat_loop(session, ScriptedReader("go"))
    assert signal.getsignal(signal.SIGINT) is before


class TestSlash:
    def test_help_names_every_command(self) -> None:
        text = obey(scripted_chat(), "/help")
        assert all(name in text for name in COMMANDS)

    @pytest.mark.parametrize(("line", "hint"), [("/hlep", "/help"), ("/1/2", "must not start with /")])
    def test_an_unknown_command_is_explained(self, line: str, hint: str) -> None:
        with pytest.raises(UsageError, match=hint):
            obey(scripted_chat(), line)

    @pytest.mark.parametrize("line", ["/save", "/load  "])
    def test_a_missing_argument_is_explained(self, line: str) -> None:
        with pytest.raises(UsageError, match="FILE"):
            obey(scripted_chat(), line)

    def test_exit(self) -> None:
        with pytest.raises(LeaveChat):
            obey(scripted_chat(), "/exit")

    def test_system_is_set_shown_and_replaced(self) -> None:
        session = scripted_chat("\n ok")
        assert obey(session, "/system") == "no system message"
        session.send("hi")
        obey(session, "/system 你是 诗人")
        assert (session.messages[0].role, session.messages[0].content) == (Role.SYSTEM, "你是 诗人")
        obey(session, "/system short")
        assert obey(session, "/system") == "short"
        assert roles(session) == ["system", "user", "assistant"]

    def test_a_new_system_message_keeps_the_tools(self) -> None:
        session = scripted_chat(tools=TOOLS)
        obey(session, "/system new")
        assert list(session.messages[0].tools) == TOOLS

    def test_clear_keeps_the_system_message(self) -> None:
        session = scripted_chat("\n ok", system="s")
        session.send("hi")
        assert "stays" in obey(session, "/clear")
        assert roles(session) == ["system"]

    def test_save_and_load(self, tmp_path: Path) -> None:
        session = scripted_chat("\n ok", system="s")
        session.send("hi")
        path = tmp_path / "with space.json"
        assert "3 messages saved" in obey(session, f"/save {path}")
        other = scripted_chat()
        assert "3 messages loaded" in obey(other, f"/load {path}")
        assert other.messages == session.messages

    def test_a_file_that_cannot_be_loaded_changes_nothing(self, tmp_path: Path) -> None:
        session = scripted_chat("\n ok")
        session.send("hi")
        path = tmp_path / "bad.json"
        path.write_text('[{"role": "user", "content": "a"}, {"role": "nobody", "content": ""}]')
        before = session.messages
        with pytest.raises(ValueError, match=r"bad\.json.*\[1\]"):
            obey(session, f"/load {path}")
        assert session.messages == before

    def test_stats(self) -> None:
        session = scripted_chat("\n ok")
        assert "0 of 4096 tokens" in obey(session, "/stats")
        session.send("hi")
        assert "answer tokens" in obey(session, "/stats")
