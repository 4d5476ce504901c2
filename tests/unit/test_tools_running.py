"""Call, run, observe: the rounds of a conversation with tools."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from glm3.application.tools.caller import ToolCaller
from glm3.application.tools.runner import ToolLimits, ToolResult, ToolRunner
from glm3.domain.conversation import FinishReason, Reply, Role, ToolCall
from glm3.domain.tools.toolbox import Toolbox
from support.scripted_chat import scripted_chat

WAIT = 30  # seconds after which a test has failed


def double(n: int) -> int:
    """Double a number."""
    return 2 * n


def calls(name: str, arguments: str = "") -> str:
    return f"{name}\n ```python\ntool_call({arguments})\n```"


def run(function: Any, limits: ToolLimits | None = None, **arguments: Any) -> ToolResult:
    return ToolRunner(Toolbox([function]), limits or ToolLimits()).run(ToolCall(function.__name__, arguments))


def test_calls_are_run_until_the_model_answers() -> None:
    results: list[ToolResult] = []
    caller = ToolCaller(Toolbox([double]), on_result=results.append)
    session = scripted_chat(calls("double", "n=4"), calls("double", "n='8'"), "\n 16", caller=caller)
    parts = list(session.stream("4 * 2 * 2?"))
    replies = [part for part in parts if isinstance(part, Reply)]
    assert [reply.finish_reason for reply in replies] == [FinishReason.TOOL_CALLS] * 2 + [FinishReason.STOP]
    assert replies[-1].text == "16"
    assert parts[-1] is replies[-1]
    assert [result.observation for result in results] == ["8", "16"]
    observed = [message.content for message in session.messages if message.role is Role.OBSERVATION]
    assert observed == ["8", "16"]
    assert session.messages[0].tools[0]["name"] == "double", "the model is shown what it may call"


def test_without_a_caller_every_call_is_left_to_whoever_asked() -> None:
    session = scripted_chat(calls("double", "n=4"), tools=Toolbox([double]).definitions)
    assert session.send("?").tool_call == ToolCall("double", {"n": 4})


def test_a_model_that_only_calls_is_stopped_after_the_last_round() -> None:
    caller = ToolCaller(Toolbox([double]), limits=ToolLimits(rounds=3))
    session = scripted_chat(*[calls("double", f"n={n}") for n in range(6)], caller=caller)
    reply = session.send("go")
    assert reply.tool_call == ToolCall("double", {"n": 3}), "the fourth call is nobody's"
    assert [message.role for message in session.messages].count(Role.OBSERVATION) == 3


@pytest.mark.parametrize(
    ("call", "observation"),
    [
        (calls("double", "n='many'"), "error: n: wrong (expected a number, found 'many')"),
        (calls("double", "m=1, n=2"), "error: m: no such argument (expected n)"),
        (calls("absent"), "error: there is no tool absent; tools: double"),
        (calls("double", "n=os.remove"), "error: the call could not be read: "),
    ],
)
def test_the_model_is_told_what_is_wrong_with_its_call(call: str, observation: str) -> None:
    session = scripted_chat(call, "\n sorry", caller=ToolCaller(Toolbox([double])))
    assert session.send("?").text == "sorry"
    assert session.messages[-2].role is Role.OBSERVATION
    assert session.messages[-2].content.startswith(observation)


def test_calls_of_tools_that_only_the_user_has_are_left_to_the_user() -> None:
    session = scripted_chat(
        calls("weather"), tools=[{"name": "weather"}], caller=ToolCaller(Toolbox([double]))
    )
    reply = session.send("?")
    assert reply.tool_call == ToolCall("weather", {})
    assert session.messages[-1].role is Role.ASSISTANT


def test_a_refused_call_is_not_run() -> None:
    ran: list[int] = []

    def act(n: int) -> str:
        """Act."""
        ran.append(n)
        return "done"

    asked: list[ToolCall] = []
    caller = ToolCaller(
        Toolbox([act]), approve=lambda call: bool(asked.append(call)) or call.arguments["n"] == 2
    )
    session = scripted_chat(calls("act", "n=1"), calls("act", "n=2"), "\n ok", caller=caller)
    session.send("?")
    assert ran == [2]
    assert asked == [ToolCall("act", {"n": 1}), ToolCall("act", {"n": 2})]
    assert session.messages[3].content == "error: the user did not allow this call"


@pytest.mark.parametrize(
    ("value", "observation"),
    [
        ("text", "text"),
        ({"温度": [1, None, True]}, '{"温度": [1, null, true]}'),
        (None, "null"),
        (1 + 2j, "(1+2j)"),
        ("half \ud800 pair", "half ? pair"),
    ],
)
def test_results_become_text(value: object, observation: str) -> None:
    def give() -> object:
        """Give."""
        return value

    assert run(give) == ToolResult(ToolCall("give", {}), observation)


def test_long_results_are_cut_off() -> None:
    def give() -> str:
        """Give."""
        return "x" * 1000

    result = run(give, ToolLimits(characters=100))
    assert result.observation == "x" * 100 + "\n[cut off: 100 of 1000 characters]"


@pytest.mark.parametrize("error", [ValueError("no luck"), SystemExit(3), RecursionError("deep")])
def test_whatever_a_tool_raises_is_an_observation(error: BaseException) -> None:
    def fail() -> str:
        """Fail."""
        raise error

    result = run(fail)
    assert result.failed
    assert result.observation == f"error: {type(error).__name__}: {error}"


def test_a_call_that_takes_too_long_is_given_up_and_its_tool_stays_busy_until_it_ends() -> None:
    end, started, threads = threading.Event(), threading.Event(), []

    def wait() -> str:
        """Wait."""
        threads.append(threading.current_thread())
        started.set()
        end.wait(WAIT)
        return "late"

    runner = ToolRunner(Toolbox([wait, double]), ToolLimits(seconds=0.05))
    call = ToolCall("wait", {})
    assert runner.run(call).observation == "error: no result within 0.05 s"
    assert started.wait(WAIT)
    assert runner.run(call).observation == "error: wait is still busy with an earlier call"
    assert len(threads) == 1
    end.set()
    threads[0].join(WAIT)
    patient = ToolRunner(Toolbox([wait]), ToolLimits(seconds=WAIT))
    assert patient.run(call).observation == "late"


def test_cancelling_ends_the_wait_for_a_tool_and_the_rounds() -> None:
    end = threading.Event()

    def wait() -> str:
        """Wait."""
        session.cancel()  # as Ctrl-C does while the main thread waits here
        end.wait(WAIT)
        return "late"

    caller = ToolCaller(Toolbox([wait]), limits=ToolLimits(seconds=WAIT))
    session = scripted_chat(calls("wait"), "\n never said", caller=caller)
    try:
        reply = session.send("?")
    finally:
        end.set()
    assert reply.tool_call == ToolCall("wait", {})
    assert [message.role for message in session.messages] == [Role.SYSTEM, Role.USER, Role.ASSISTANT]


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"seconds": 0}, {"characters": 5}])
def test_limits_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ToolLimits(**wrong)  # type: ignore[arg-type]
