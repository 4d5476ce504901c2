"""Tools at the terminal: which there are, and who is asked."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

import pytest

from glm3.application.tools.caller import ToolCaller
from glm3.application.tools.examples import example_tools
from glm3.domain.conversation import ToolCall
from glm3.domain.errors import UsageError
from glm3.entrypoints.cli.repl import stream_answer
from glm3.entrypoints.cli.tools import AskUser, tool_caller
from support.scripted_chat import scripted_chat

CALL = ToolCall("clock", {"timezone": "上海\x1b[2J"})
CALCULATE = "calculator\n ```python\ntool_call(expression='6 * 7')\n```"


def typing(*lines: str) -> Callable[[], str]:
    """Return what types these lines, then ends."""
    rest = iter(lines)
    return lambda: next(rest, "")


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [(["y\n"], True), (["YES\n"], True), (["n\n"], False), (["what\n", "\n", "a\n"], True), ([], False)],
)
def test_the_user_is_asked_before_a_call(
    lines: list[str], allowed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert AskUser(typing(*lines))(CALL) is allowed
    shown = capsys.readouterr()
    assert shown.out == "", "the answer's stream stays clean"
    assert shown.err.startswith('the model calls clock(timezone="上海\\u001b[2J")\n')
    assert shown.err.count("run it?") == max(1, len(lines))


def test_always_counts_for_one_tool() -> None:
    ask = AskUser(typing("a\n", "n\n"))
    assert [ask(CALL), ask(CALL), ask(ToolCall("other", {})), ask(CALL)] == [True, True, False, True]


def test_ctrl_c_at_the_question_is_a_no_and_stops_the_answer() -> None:
    caught: list[int] = []

    def handler(number: int, _: FrameType | None) -> None:
        caught.append(number)

    def interrupted() -> str:
        signal.raise_signal(signal.SIGINT)
        return "y\n"

    before = signal.signal(signal.SIGINT, handler)
    try:
        assert AskUser(interrupted)(CALL) is False
        assert caught == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)


@pytest.mark.usefixtures("terminal")
def test_only_tools_that_come_along_can_be_named() -> None:
    assert tool_caller([], allow_all=False) is None
    caller = tool_caller(["clock"], allow_all=False)
    assert caller is not None
    assert [tool["name"] for tool in caller.definitions] == ["clock"]
    with pytest.raises(
        UsageError, match=r"--tool: no such tool \(expected calculator, clock, found os.system"
    ):
        tool_caller(["os.system"], allow_all=True)
    with pytest.raises(UsageError, match="--yes needs a tool"):
        tool_caller([], allow_all=True)


def test_a_program_without_a_terminal_must_allow_calls_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="nobody can be asked"):
        tool_caller(["clock"], allow_all=False)
    assert tool_caller(["clock"], allow_all=True) is not None


def test_only_the_answer_is_printed_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    caller = tool_caller(["calculator"], allow_all=True)
    session = scripted_chat(CALCULATE, "\n 42", caller=caller)
    reply = stream_answer(session, "6 * 7?")
    assert reply.text == "42"
    shown = capsys.readouterr()
    assert shown.out == "42\n"
    assert shown.err == 'the model calls calculator(expression="6 * 7")\ncalculator: 42\n'


def test_a_refused_call_reaches_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    session = scripted_chat(
        CALCULATE, "\n then not", caller=ToolCaller(example_tools(), approve=AskUser(typing("n\n")))
    )
    assert stream_answer(session, "6 * 7?").text == "then not"
    assert session.messages[-2].content == "error: the user did not allow this call"
