"""Messages of chat.proto as the service's records, and what is wrong with them by field."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from glm3.application.serving.problem import problem_of
from glm3.application.serving.records import ToolChoice, ToolMode
from glm3.application.serving.sessions import Session
from glm3.domain.conversation import Message, Role, ToolSpec
from glm3.domain.errors import (
    ContextLengthError,
    Glm3Error,
    InvalidInputError,
    MultipleFaultsError,
    OverloadedError,
)
from glm3.domain.generation_defaults import GenerationDefaults
from glm3.domain.tool_call import format_tool_call
from glm3.entrypoints.client.options import ChatOptions
from glm3.entrypoints.grpc.decoding import decode
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from glm3.entrypoints.grpc.messages import read_messages, write_messages
from glm3.entrypoints.grpc.requests import read_chat, read_completion, read_turn
from glm3.entrypoints.grpc.status import details_of, message_of
from glm3.entrypoints.serving.fields import Fields

USER = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="hello")
CALL = chat_pb2.ToolCall(name="look", arguments_json='{"city": "北京"}')
TOOL = chat_pb2.Tool(name="look", description="Looks.", parameters_json='{"type": "object"}')


def chat(**changes: Any) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(**{"messages": [USER], **changes})


def say(role: int, content: str = "x", **more: Any) -> chat_pb2.Message:
    return chat_pb2.Message(role=role, content=content, **more)  # type: ignore[arg-type]


def fields_of(error: Glm3Error) -> list[str | None]:
    return (
        [fault.field for fault in error.faults] if isinstance(error, MultipleFaultsError) else [error.field]
    )


def test_a_full_request_is_read():
    given = chat(
        messages=[
            say(chat_pb2.ROLE_SYSTEM, "Be brief."),
            USER,
            say(chat_pb2.ROLE_ASSISTANT, "I look.", tool_call=CALL),
            say(chat_pb2.ROLE_OBSERVATION, "fine"),
        ],
        options=ChatOptions(
            max_tokens=7, temperature=0, stop="。", seed=-1, logprobs=True, top_logprobs=2
        ).message(),
        tools=[TOOL],
        tool_choice=chat_pb2.ToolChoice(mode=chat_pb2.ToolChoice.MODE_REQUIRED, name="look"),
        choices=2,
        model="tiny",
    )
    request = read_chat(given, 3.5)
    assert request.messages == (
        Message(Role.SYSTEM, "Be brief."),
        Message(Role.USER, "hello"),
        Message(Role.ASSISTANT, "I look."),
        format_tool_call("look", {"city": "北京"}),
        Message(Role.OBSERVATION, "fine"),
    )
    assert request.tools == (
        ToolSpec("look", {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}),
    )
    assert request.tool_choice == ToolChoice(ToolMode.REQUIRED, "look")
    options = request.options
    assert (options.max_new_tokens, options.do_sample, options.stop_strings) == (7, False, ("。",))
    assert (options.seed, options.logprobs, request.top_logprobs) == (2**64 - 1, True, 2)
    assert (request.choices, request.model, request.time_limit) == (2, "tiny", 3.5)


def test_what_is_not_said_is_as_in_the_models_own_chat():
    options = read_chat(chat(), None).options
    assert (options.do_sample, options.temperature, options.top_p, options.max_new_tokens) == (
        True,
        0.8,
        0.8,
        None,
    )


def test_what_is_not_said_is_as_the_models_folder_says():
    folder = GenerationDefaults(do_sample=False, top_k=7, repetition_penalty=1.5)
    session = Session("id", "client", (), ())
    given = chat_pb2.GenerationOptions(repetition_penalty=1.2)
    asked = chat_pb2.CompleteRequest(prompts=[chat_pb2.Prompt(text="a")], options=given)
    turn = chat_pb2.SessionChatRequest(messages=[USER], options=given)
    for request in (
        read_chat(chat(options=given), None, folder),
        read_completion(asked, None, folder),
        read_turn(turn, session, None, folder)[1],
    ):
        options = request.options
        assert (options.do_sample, options.top_k, options.repetition_penalty) == (False, 7, 1.2)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"messages": []}, ["messages"]),
        ({"messages": [chat_pb2.Message(content="x")]}, ["messages[0].role"]),
        ({"messages": [USER, say(77)]}, ["messages[1].role"]),
        ({"messages": [USER, say(chat_pb2.ROLE_SYSTEM)]}, ["messages[1].role"]),
        ({"messages": [say(chat_pb2.ROLE_OBSERVATION)]}, ["messages[0].role"]),
        ({"messages": [say(chat_pb2.ROLE_USER, tool_call=CALL)]}, ["messages[0].tool_call"]),
        ({"messages": [say(chat_pb2.ROLE_USER, metadata="look")]}, ["messages[0].metadata"]),
        ({"messages": [say(chat_pb2.ROLE_ASSISTANT, metadata="a\nb")]}, ["messages[0].metadata"]),
        (
            {"messages": [say(chat_pb2.ROLE_ASSISTANT, metadata="a", tool_call=CALL)]},
            ["messages[0].metadata"],
        ),
        (
            {"messages": [say(chat_pb2.ROLE_ASSISTANT, tool_call=chat_pb2.ToolCall(name="a b"))]},
            ["messages[0].tool_call.name"],
        ),
        (
            {
                "messages": [
                    say(chat_pb2.ROLE_ASSISTANT, tool_call=chat_pb2.ToolCall(name="a", arguments_json=text))
                    for text in ("{", "[]", '{"a b": 1}', '{"a": NaN}', "[" * 100_000, '{"a": "\\ud800"}')
                ]
            },
            [f"messages[{index}].tool_call.arguments_json" for index in range(6)],
        ),
        ({"tools": [chat_pb2.Tool(name="")]}, ["tools[0].name"]),
        ({"tools": [TOOL, TOOL]}, ["tools[1].name"]),
        ({"tools": [chat_pb2.Tool(name="a", parameters_json="[1]")]}, ["tools[0].parameters_json"]),
        ({"tool_choice": chat_pb2.ToolChoice(mode=9)}, ["tool_choice.mode"]),  # type: ignore[arg-type]
        ({"tool_choice": chat_pb2.ToolChoice(name="look")}, ["tool_choice.name"]),
        ({"tool_choice": chat_pb2.ToolChoice(mode=3)}, ["tool_choice.mode"]),  # type: ignore[arg-type]
        (
            {"tools": [TOOL], "tool_choice": chat_pb2.ToolChoice(mode=3, name="no")},  # type: ignore[arg-type]
            ["tool_choice.name"],
        ),
        ({"messages": [USER] * 10_001}, ["messages"]),
        ({"tools": [chat_pb2.Tool(name=f"t{index}") for index in range(129)]}, ["tools"]),
        ({"choices": 0}, ["choices"]),
        ({"choices": -1}, ["choices"]),
        (
            {"options": {"temperature": nan, "top_p": inf, "repetition_penalty": -1.0, "max_tokens": 0}},
            [
                "options.max_tokens",
                "options.temperature",
                "options.top_p",
                "options.repetition_penalty",
            ],
        ),
        ({"options": {"min_tokens": 5, "max_tokens": 4}}, ["options.min_tokens"]),
        ({"options": {"do_sample": True, "temperature": 0}}, ["options.do_sample"]),
        ({"options": {"top_logprobs": 2}}, ["options.top_logprobs"]),
        ({"options": {"stop": ["a", ""]}}, ["options.stop"]),
    ],
)
def test_every_fault_is_named_by_its_field(changes, fields):
    with pytest.raises(InvalidInputError) as caught:
        read_chat(chat(**changes), None)
    assert fields_of(caught.value) == fields


def test_prompts_are_texts_or_ids():
    given = chat_pb2.CompleteRequest(
        prompts=[
            chat_pb2.Prompt(text="a"),
            chat_pb2.Prompt(ids=chat_pb2.TokenIds(ids=[1, 2])),
            chat_pb2.Prompt(text=""),
        ]
    )
    assert read_completion(given, None).prompts == ("a", [1, 2], "")
    given.prompts.add()
    given.prompts.add(ids=chat_pb2.TokenIds(ids=[-1]))
    given.echo = given.options.logprobs = True
    with pytest.raises(MultipleFaultsError) as caught:
        read_completion(given, None)
    assert fields_of(caught.value) == ["prompts[3]", "prompts[4]", "echo"]
    with pytest.raises(InvalidInputError) as empty:
        read_completion(chat_pb2.CompleteRequest(), None)
    assert empty.value.field == "prompts"


contents = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
turns = st.tuples(contents, st.sampled_from(["", "look", "interpreter"]), contents)


@given(st.lists(turns, min_size=1, max_size=4))
def test_a_dialogue_that_is_sent_comes_back(rounds):
    dialogue = [Message(Role.SYSTEM, "Be brief.")]
    for said, header, answered in rounds:
        dialogue += [Message(Role.USER, said), Message(Role.ASSISTANT, answered, header)]
    root = Fields({})
    sent = [chat_pb2.Message.FromString(one.SerializeToString()) for one in write_messages(dialogue)]
    assert read_messages(sent, root) == dialogue
    assert not root.faults


def test_fields_that_are_not_known_are_named():
    inner = USER.SerializeToString() + b"\xa2\x06\x01x"  # field 100, one byte
    content = b"\x0a" + bytes([len(inner)]) + inner + b"\xc8\x01\x05"  # field 25, a number
    with pytest.raises(MultipleFaultsError) as caught:
        decode(chat_pb2.ChatRequest, content)
    assert fields_of(caught.value) == ["#25", "messages[0].#100"]


@pytest.mark.parametrize(
    "content", [b"\xff", b"\x0a\x05x", b"\x0a\x04\x12\x02\xff\xfe", b"\x0a\x05\x12\x03\xed\xa0\x80"]
)
def test_what_is_no_message_is_the_clients_fault(content):
    with pytest.raises(InvalidInputError):
        decode(chat_pb2.ChatRequest, content)


def details(error: Exception) -> dict[str, Any]:
    status = Status.FromString(details_of(problem_of(error)))
    found: dict[str, Any] = {"code": status.code, "message": status.message}
    for detail in status.details:
        for kind in (ErrorInfo, BadRequest, RetryInfo):
            message = kind()
            if detail.Unpack(message):
                found[kind.__name__] = message
    return found


def test_details_say_what_programs_need():
    found = details(ContextLengthError("too long", field="prompt[2]", hint="shorten"))
    assert (found["code"], found["ErrorInfo"].reason, found["ErrorInfo"].domain) == (
        3,
        "CONTEXT_LENGTH",
        "glm3.v1",
    )
    assert [one.field for one in found["BadRequest"].field_violations] == ["prompts[2]"]
    assert "RetryInfo" not in found
    found = details(OverloadedError("full", retry_after=2.5))
    assert (found["code"], found["RetryInfo"].retry_delay.ToMilliseconds()) == (8, 2500)
    assert details(RuntimeError("secret"))["code"] == 13
    assert "secret" not in str(details(RuntimeError("secret")))


def test_of_very_many_faults_clients_get_as_much_as_they_take():
    faults = [InvalidInputError("错" * 500, field=f"messages[{index}]") for index in range(1000)]
    problem = problem_of(MultipleFaultsError("many", faults))
    assert len(details_of(problem)) < 6000
    assert len(message_of(problem).encode()) < 2000
    assert message_of(problem).startswith("many\n- messages[0]")
